//! Kinds of clicks, and the attributes by which clicks are grouped.

/// The kind of a request for a short link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClickKind {
    /// A click by a person.
    Person = 0,
    /// A request by a bot, or without a user agent.
    Bot = 1,
    /// A browser's prefetch (`Sec-Purpose: prefetch`).
    Prefetch = 2,
    /// A `HEAD` request.
    Head = 3,
}

impl ClickKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Person, Self::Bot, Self::Prefetch, Self::Head];

    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Bot => "bot",
            Self::Prefetch => "prefetch",
            Self::Head => "head",
        }
    }

    /// The kind of a request; `HEAD` has precedence over bot, and bot over prefetch.
    pub fn of(is_head: bool, is_bot: bool, is_prefetch: bool) -> Self {
        if is_head {
            Self::Head
        } else if is_bot {
            Self::Bot
        } else if is_prefetch {
            Self::Prefetch
        } else {
            Self::Person
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// An attribute that many clicks share, such as a browser. An unknown part is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClickValue {
    /// The kind of attribute.
    pub kind: ValueKind,
    /// The parts, in the order of [`ValueKind::parts`].
    pub parts: Vec<String>,
}

/// A kind of [`ClickValue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ValueKind {
    /// Browser, operating system and device class.
    Agent = 1,
    /// Country (ISO 3166-1 alpha-2) and language (ISO 639).
    Origin = 2,
    /// The referring host.
    Referrer = 3,
    /// `utm_source`, `utm_medium` and `utm_campaign` of the target URL.
    Campaign = 4,
}

impl ValueKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Agent, Self::Origin, Self::Referrer, Self::Campaign];

    /// The names of the parts, which are the dimensions of statistics.
    pub const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["browser", "os", "device"],
            Self::Origin => &["country", "language"],
            Self::Referrer => &["referrer"],
            Self::Campaign => &["utm_source", "utm_medium", "utm_campaign"],
        }
    }

    /// The number in the database.
    pub const fn number(self) -> i16 {
        self as i16
    }
}
