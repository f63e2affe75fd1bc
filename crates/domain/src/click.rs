//! Clicks: what is known of one, and of what they have in common.

/// What a request for a short link was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClickKind {
    /// A person's click.
    Person = 0,
    /// A program that says that it is one, or says nothing.
    Bot = 1,
    /// A browser that looks ahead (`Sec-Purpose: prefetch`).
    Prefetch = 2,
    /// A `HEAD` request.
    Head = 3,
}

impl ClickKind {
    /// All kinds, by number.
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

    /// What a request was, by what is known of it.
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

/// What many clicks have in common. A part that is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClickValue {
    /// Of what.
    pub kind: ValueKind,
    /// Its parts, in the order of [`ValueKind::parts`].
    pub parts: Vec<String>,
}

/// What clicks are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ValueKind {
    /// Browser, operating system and class of device.
    Agent = 1,
    /// Country (ISO 3166-1 alpha-2) and language (ISO 639).
    Origin = 2,
    /// The host that led here.
    Referrer = 3,
    /// `utm_source`, `utm_medium` and `utm_campaign` of the target.
    Campaign = 4,
}

impl ValueKind {
    /// All kinds, by number.
    pub const ALL: [Self; 4] = [Self::Agent, Self::Origin, Self::Referrer, Self::Campaign];

    /// The names of the parts: the dimensions of the statistics.
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
