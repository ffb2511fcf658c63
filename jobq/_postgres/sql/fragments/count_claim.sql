-- The counters that a claim increments. At the end of its range `attempt` stays, and `claims`,
-- which only has to differ from its last value, starts again.
attempt = least(job.attempt, 2147483646) + 1,
claims = CASE job.claims WHEN 2147483647 THEN 1 ELSE job.claims + 1 END
