DELETE FROM workers WHERE left_at IS NOT NULL;
ALTER TABLE workers DROP COLUMN left_at;
