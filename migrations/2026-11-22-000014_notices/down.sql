DROP TRIGGER note_end ON video_jobs;
DROP FUNCTION note_end;
DROP TABLE notices, notice_targets;
