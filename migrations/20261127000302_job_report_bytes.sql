SET LOCAL lock_timeout = '5s';

-- Size of the job's rows in `job_row_errors`, from which the sum of a user's jobs is limited
-- (`jobs.row_error_bytes_per_user`). 0 for the reports of the previous release.
ALTER TABLE jobs ADD COLUMN report_bytes bigint NOT NULL DEFAULT 0;

-- Jobs without an owner count together. The table is small: jobs are deleted after `jobs.retention_days`.
CREATE INDEX jobs_report_bytes_idx ON jobs (COALESCE(user_id, 0)) INCLUDE (report_bytes) WHERE report_bytes > 0;
