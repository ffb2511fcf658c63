-- Forgets that a run is to be cancelled.
DELETE FROM {schema}.workflow_turn WHERE kind = 'cancel' AND subject_id = %(id)s
