//! Tests of a whole installation.
//!
//! * Requests go through nginx unless a comment gives the reason.
//! * Each subject has a module. All modules are one program, which is linked once.
//! * A test whose name contains `must_NN_` tests the guarantee in row NN of `docs/GUARANTEES.md`.

mod api;
mod authorization;
mod bulk;
mod click_limits;
mod clock_skew;
mod enumeration;
mod export;
mod faults;
mod freshness;
mod gateway;
mod generate;
mod http2;
mod idempotency;
mod import;
mod invalid_input;
mod jobs;
mod kill_cycles;
mod lifecycle;
mod links;
mod live_clicks;
mod logs;
mod long_values;
mod maintenance;
mod malformed_requests;
mod memory;
mod metrics_format;
mod negotiation;
mod nginx_problems;
mod pipeline;
mod pooler;
mod postgres_failover;
mod privacy;
mod quotas;
mod redirects;
mod redis_cluster;
mod redis_failover;
mod redis_roles;
mod replica;
mod shares;
mod short_codes;
mod slow_bodies;
mod stalled_processes;
mod stampede;
mod stats;
mod stream_tokens;
mod takedowns;
mod targets;
mod tls;
