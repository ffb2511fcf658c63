-- `known.signature`, a worker's signature of a task, is not among $refusals: the signatures whose code
-- could not run the job since it last ran, separated by spaces.
NOT coalesce(known.signature = ANY (string_to_array($refusals, ' ')), false)
