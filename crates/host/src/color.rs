//! The two colors that take turns: while one serves, the other one is replaced.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pair of a gateway and a shortener with their sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// The color of a first start.
    Blue,
    /// The other one.
    Green,
}

impl Color {
    /// Both colors.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// The name in services, sockets and slots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The color that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The two services of the color: gateway, shortener.
    pub fn services(self) -> [String; 2] {
        [format!("gateway-{self}"), format!("shortener-{self}")]
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
