//! Names of keys in Redis: one layout for one master, another for a Redis Cluster.
//!
//! In a cluster, every key has the hash tag `{linnet}`, so all keys are in the same slot, [`HOME_SLOT`], and one master
//! has them: scripts and transactions over several keys work, and one connection suffices.

use std::fmt::{self, Write as _};

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;
/// The slot of every key in a cluster.
pub const HOME_SLOT: u16 = slot_of_tag(b"linnet");

/// How keys are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLayout {
    /// One server, or a master with replicas.
    Server,
    /// A Redis Cluster.
    Cluster,
}

impl KeyLayout {
    /// The begin of every name but those of L2.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Server => "linnet:",
            Self::Cluster => "{linnet}:",
        }
    }

    /// A name with the [`Self::prefix`].
    pub fn name(self, rest: fmt::Arguments<'_>) -> String {
        let mut name = String::with_capacity(64);
        name.push_str(self.prefix());
        // Writing to a string cannot fail.
        let _: fmt::Result = name.write_fmt(rest);
        name
    }

    /// The begin of every name in L2.
    pub const fn l2_prefix(self) -> &'static str {
        match self {
            Self::Server => "l:",
            Self::Cluster => "{linnet}:l:",
        }
    }

    /// The key that is written to find out whether Redis accepts writes.
    pub(crate) const fn probe(self) -> &'static str {
        match self {
            Self::Server => "linnet:probe",
            Self::Cluster => "{linnet}:probe",
        }
    }

    /// In a cluster, a key that never exists. Reading it fails unless the server has the whole [`HOME_SLOT`].
    pub(crate) const fn absent(self) -> Option<&'static str> {
        match self {
            Self::Server => None,
            Self::Cluster => Some("{linnet}:absent"),
        }
    }
}

/// The slot of keys with this hash tag: CRC16 in the variant XMODEM, as the specification of Redis Cluster defines it.
const fn slot_of_tag(mut tag: &[u8]) -> u16 {
    let mut crc = 0_u16;
    while let Some((byte, rest)) = tag.split_first() {
        crc ^= (*byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tag = rest;
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // 0x31C3 is the specification's example; the others are from `CLUSTER KEYSLOT`.
        assert_eq!(slot_of_tag(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot_of_tag(b""), 0);
        assert_eq!(slot_of_tag(b"foo"), 12_182);
    }

    #[test]
    fn every_name_in_a_cluster_begins_with_the_hash_tag() {
        let layout = KeyLayout::Cluster;
        let names = [layout.prefix(), layout.l2_prefix(), layout.probe(), layout.absent().unwrap()];
        for name in names {
            assert!(name.starts_with("{linnet}:"), "{name}");
        }
        assert_eq!(layout.name(format_args!("rate:u:{{{}}}", 7)), "{linnet}:rate:u:{7}");
        assert_eq!(KeyLayout::Server.name(format_args!("v:{}", 7)), "linnet:v:7");
    }

    #[test]
    fn names_on_one_server_are_those_of_the_last_release() {
        let layout = KeyLayout::Server;
        assert_eq!(
            (layout.prefix(), layout.l2_prefix(), layout.probe(), layout.absent()),
            ("linnet:", "l:", "linnet:probe", None)
        );
    }
}
