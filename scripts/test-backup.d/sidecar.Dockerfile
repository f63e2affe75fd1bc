# The sidecar around a program that is already built, with the layout of deploy/Dockerfile.
ARG BASE
ARG SHORTENER
FROM ${SHORTENER} AS shortener
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates pgbackrest \
 && rm -rf /var/lib/apt/lists/* /etc/pgbackrest.conf \
 && install -d -o 999 -g 999 -m 0700 /var/lib/linnet/archive /var/lib/linnet/backup /repository
COPY --from=shortener /linnet-shortener /usr/local/bin/linnet-shortener
COPY linnet-backup /usr/local/bin/linnet-backup
USER 999:999
ENTRYPOINT ["linnet-backup"]
CMD ["run"]
