# An S3 server for tests: rclone, whose buckets are folders.
ARG BASE
FROM ${BASE}
COPY rclone /usr/local/bin/rclone
ENTRYPOINT []
