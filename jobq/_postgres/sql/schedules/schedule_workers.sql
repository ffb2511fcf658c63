-- Writes which schedules this worker's application declares. No row: the worker's lease is lost.
UPDATE {schema}.worker SET schedules = %(names)s::text[] WHERE id = %(worker)s RETURNING id
