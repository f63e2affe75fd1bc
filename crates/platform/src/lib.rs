//! Everything a Linnet process needs to run, and nothing of the product.
//!
//! * [`backoff`]: waits between failed attempts.
//! * [`byte_budget`]: bounds the bytes that requests hold.
//! * [`cli`]: the command line that all programs share.
//! * [`client_address`]: the address of a client behind a proxy.
//! * [`client_network`]: groups client addresses for limits.
//! * [`clock`]: the wall clock, passed to code whose result depends on it.
//! * [`crash`]: keeps personal data out of core dumps and panic messages.
//! * [`exit_code`]: the exit codes that supervisors distinguish.
//! * [`healthcheck`]: checks whether a running process is ready.
//! * [`invalidation_bus`]: messages that invalidate caches, with a bound on staleness.
//! * [`least_rate`]: ends request bodies that arrive too slowly.
//! * [`lifecycle`]: signals, draining, and critical background tasks.
//! * [`listener`]: TCP and unix-socket listeners that can be retired without losing a connection.
//! * [`lock`]: locks mutexes that a panic has poisoned.
//! * [`memory_budget`]: computes the most memory that a process can use.
//! * [`memory`]: keeps resident memory close to what is used.
//! * [`redis_client`]: a multiplexed Redis connection that is its own circuit breaker.
//! * [`redis_connection`]: Redis connections for background tasks.
//! * [`redis_keys`]: names of keys in Redis.
//! * [`redis_master`]: the master that a majority of sentinels, or of a cluster's nodes, names.
//! * [`server`]: the parts that every HTTP server has in common.
//! * [`settings`]: layered configuration that reports every problem at once.
//! * [`single_flight`]: coalesces concurrent calls for the same key.
//! * [`slot_pool`]: bounded slots, of which each owner has a share.
//! * [`testing`]: test helpers that several programs share.

pub mod backoff;
pub mod byte_budget;
pub mod cli;
pub mod client_address;
pub mod client_network;
pub mod clock;
pub mod crash;
mod deadline;
mod environment;
pub mod exit_code;
mod head_limit;
pub mod healthcheck;
pub mod invalidation_bus;
pub mod least_rate;
pub mod lifecycle;
pub mod listener;
pub mod lock;
pub mod memory;
pub mod memory_budget;
pub mod postgres_url;
pub mod redis_client;
pub mod redis_connection;
mod redis_fault;
pub mod redis_keys;
pub mod redis_master;
mod redis_target;
pub mod server;
pub mod settings;
pub mod single_flight;
pub mod slot_pool;
pub mod testing;
pub mod waiting_share;
