-- Revision 0008: keys that were taken by the former functions while revision 0006 was applied belong to their jobs' tasks, too.
DROP TRIGGER IF EXISTS job_key_keep ON {schema}.job_key;

DROP FUNCTION IF EXISTS {schema}.keep_key();

UPDATE {schema}.job_key SET scope = owner.task
FROM (SELECT id, task, key_scope FROM {schema}.job WHERE key IS NOT NULL
      UNION ALL SELECT id, task, key_scope FROM {schema}.job_history WHERE key IS NOT NULL) AS owner
WHERE owner.id = job_key.job_id AND owner.key_scope IS NULL AND job_key.scope = '' AND job_key.task IS NULL
  -- An entry of the index has at most 2,704 bytes.
  AND octet_length(job_key.key) + octet_length(owner.task) <= 2600
  -- Two calls, of the former and of the present function, that did not see one another: the present one has the key.
  AND NOT EXISTS (SELECT FROM {schema}.job_key AS other WHERE other.key = job_key.key AND other.scope = owner.task);
