//! The question to a voter, and its answer.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue as _, RedisError, RedisResult,
    Value, aio::MultiplexedConnection,
};

use crate::{
    redis_keys::HOME_SLOT,
    redis_target::{Address, VoterKind},
};

/// Longest wait for a connection to a voter, and for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// A sentinel, or a node of a Redis Cluster, with its address.
pub(crate) struct Voter {
    pub(crate) client: Client,
    pub(crate) address: Address,
}

impl Voter {
    /// Asks for the master; `None` if the voter knows none. A connection that fails must not be used again.
    pub(super) async fn ask(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        kind: &VoterKind,
    ) -> RedisResult<Option<Address>> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER_TIMEOUT))
                    .set_response_timeout(Some(ANSWER_TIMEOUT));
                let opened = self.client.get_multiplexed_async_connection_with_config(&config);
                connection.insert(opened.await?)
            }
        };
        match kind {
            VoterKind::Sentinels { name } => master_command(name).query_async(connection).await,
            VoterKind::Nodes => {
                let slots: Value = slots_command().query_async(connection).await?;
                owner_of_home_slot(slots, &self.address)
            }
        }
    }
}

fn master_command(name: &str) -> Cmd {
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(name);
    command
}

/// `CLUSTER SHARDS` has the same content, but exists only since Redis 7.
fn slots_command() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// The master of [`HOME_SLOT`] in the reply to `CLUSTER SLOTS`; `None` if no node has the slot, or if the voter does not
/// know the node's address. A node that was never introduced to another one does not know its own address, which is
/// `own` then.
fn owner_of_home_slot(slots: Value, own: &Address) -> RedisResult<Option<Address>> {
    let ranges: Vec<Vec<Value>> = Vec::from_redis_value(slots)?;
    for range in ranges {
        let mut parts = range.into_iter();
        let (Some(first), Some(last), Some(master)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("a range has fewer than three parts"));
        };
        let slots = number(first)?..=number(last)?;
        if slots.contains(&HOME_SLOT) {
            return address_of(master, own);
        }
    }
    Ok(None)
}

/// The address at the begin of a node's description: host and port, followed by its id.
fn address_of(node: Value, own: &Address) -> RedisResult<Option<Address>> {
    let mut parts = Vec::<Value>::from_redis_value(node)?.into_iter();
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else {
        return Err(malformed("a node has fewer than two parts"));
    };
    let port = number(port)?;
    let host: Option<String> = Option::from_redis_value(host)?;
    Ok(match host.as_deref() {
        // A node that announces a host name and has none yet.
        None | Some("?") => None,
        Some("") => Some((own.0.clone(), port)),
        Some(host) => Some((host.to_ascii_lowercase(), port)),
    })
}

/// A slot or a port.
fn number(value: Value) -> RedisResult<u16> {
    u16::try_from(i64::from_redis_value(value)?).map_err(|_| malformed("a number is out of range"))
}

fn malformed(detail: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS is malformed", detail.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Option<&str>, port: i64) -> Value {
        let host = host.map_or(Value::Nil, |host| Value::BulkString(host.into()));
        let id = Value::BulkString(b"0123456789abcdef".to_vec());
        Value::Array(vec![host, Value::Int(port), id, Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut parts = vec![Value::Int(first), Value::Int(last)];
        parts.extend(nodes);
        Value::Array(parts)
    }

    fn owner(ranges: Vec<Value>) -> RedisResult<Option<Address>> {
        owner_of_home_slot(Value::Array(ranges), &("own".to_owned(), 6_379))
    }

    fn of_node(master: Value) -> Option<Address> {
        owner(vec![range(0, 16_383, vec![master])]).unwrap()
    }

    #[test]
    fn the_first_node_of_the_range_with_the_home_slot_is_its_master() {
        let home = i64::from(HOME_SLOT);
        let found = owner(vec![
            range(home + 1, 16_383, vec![node(Some("10.0.0.1"), 1)]),
            range(0, home - 1, vec![node(Some("10.0.0.2"), 2)]),
            range(home, home, vec![node(Some("10.0.0.3"), 3), node(Some("10.0.0.4"), 4)]),
        ]);
        assert_eq!(found.unwrap(), Some(("10.0.0.3".to_owned(), 3)));
        let without = owner(vec![
            range(home + 1, 16_383, vec![node(Some("10.0.0.1"), 1)]),
            range(0, home - 1, vec![node(Some("10.0.0.2"), 2)]),
        ]);
        assert_eq!(without.unwrap(), None, "no node has the slot");
        assert_eq!(owner(vec![]).unwrap(), None);
    }

    #[test]
    fn a_node_without_an_address_is_no_master_unless_it_is_the_voter_itself() {
        assert_eq!(of_node(node(Some("Redis-1.example"), 7)), Some(("redis-1.example".into(), 7)));
        assert_eq!(of_node(node(Some(""), 7)), Some(("own".to_owned(), 7)));
        assert_eq!(of_node(node(None, 7)), None);
        assert_eq!(of_node(node(Some("?"), 7)), None);
    }

    #[test]
    fn a_malformed_reply_is_an_error() {
        for reply in [
            vec![Value::Int(1)],
            vec![Value::Array(vec![Value::Int(0), Value::Int(16_383)])],
            vec![range(0, 16_383, vec![Value::Array(vec![])])],
            vec![range(-1, 16_383, vec![node(Some("h"), 1)])],
            vec![range(0, 16_383, vec![node(Some("h"), 70_000)])],
        ] {
            assert!(owner(reply.clone()).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn each_kind_of_voter_is_asked_with_its_own_command() {
        let words = |command: Cmd| String::from_utf8(command.get_packed_command()).unwrap();
        let sentinel = words(master_command("m"));
        assert!(sentinel.contains("get-master-addr-by-name") && sentinel.contains("\nm\r\n"));
        assert!(words(slots_command()).contains("SLOTS"));
    }
}
