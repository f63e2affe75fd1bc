//! Kinds of clicks, and the attributes by which clicks are grouped.

/// The kind of a request for a short link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClickKind {
    /// A click by a person.
    Person = 0,
    /// A request by a bot, or without a user agent.
    Bot = 1,
    /// A browser's prefetch, prerender or preview, see [`is_speculative`].
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

    /// The kind of a request; `HEAD` has precedence over bot, and bot over prefetch. Limits, statistics and live
    /// streams all decide with this function whether a person visits.
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

    /// Whether the request uses up a click of a link with `max_clicks`.
    pub const fn uses_up_a_click(self) -> bool {
        matches!(self, Self::Person)
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The request headers by which a browser announces that it fetches before a person has asked, in lower case: the
/// current one, its name in older browsers, and those of Firefox and Safari.
pub const PURPOSE_HEADERS: [&str; 4] = ["sec-purpose", "purpose", "x-moz", "x-purpose"];

/// Whether the value of one of [`PURPOSE_HEADERS`] announces a prefetch, a prerender or a preview. The value is any
/// bytes; it may be a list with parameters, such as `prefetch;prerender`.
pub fn is_speculative(value: &[u8]) -> bool {
    let tokens = value.split(|byte| matches!(byte, b';' | b',' | b' ' | b'\t' | b'='));
    tokens.into_iter().any(|token| {
        [&b"prefetch"[..], b"prerender", b"preview"]
            .iter()
            .any(|purpose| token.eq_ignore_ascii_case(purpose))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_30_prefetch_prerender_and_preview_are_no_person() {
        for value in [
            "prefetch",
            "prerender",
            "preview",
            "Prefetch",
            "prefetch;prerender",
            "prefetch; anonymous-client-ip",
            "prerender, prefetch",
            " prefetch ",
            "navigate;prefetch",
        ] {
            assert!(is_speculative(value.as_bytes()), "{value}");
        }
        for value in ["", "navigate", "prefetched", "livebookmarks", "no-prefetch", "\u{fffd}"] {
            assert!(!is_speculative(value.as_bytes()), "{value}");
        }
        assert!(!is_speculative(b"\xff\xfe"));
    }

    #[test]
    fn must_30_only_a_person_uses_up_a_click() {
        for (is_head, is_bot, is_prefetch) in
            [(true, false, false), (false, true, false), (false, false, true), (true, true, true)]
        {
            assert!(!ClickKind::of(is_head, is_bot, is_prefetch).uses_up_a_click());
        }
        assert!(ClickKind::of(false, false, false).uses_up_a_click());
    }

    #[test]
    fn kinds_have_a_number_and_a_name() {
        let names = ["person", "bot", "prefetch", "head"];
        for (number, (kind, name)) in (0..).zip(ClickKind::ALL.into_iter().zip(names)) {
            assert_eq!((kind as u8, kind.name()), (number, name));
            assert_eq!(ClickKind::from_number(number), Some(kind));
        }
        assert_eq!(ClickKind::from_number(4), None);
        assert_eq!(ClickKind::from_number(u8::MAX), None);
    }

    #[test]
    fn kind_of_a_request_follows_the_precedence() {
        for (is_head, is_bot, is_prefetch, kind) in [
            (true, true, true, ClickKind::Head),
            (true, false, false, ClickKind::Head),
            (false, true, true, ClickKind::Bot),
            (false, false, true, ClickKind::Prefetch),
            (false, false, false, ClickKind::Person),
        ] {
            assert_eq!(ClickKind::of(is_head, is_bot, is_prefetch), kind);
        }
    }

    #[test]
    fn attributes_have_their_number_and_their_parts() {
        let numbers = ValueKind::ALL.map(ValueKind::number);
        assert_eq!(numbers, [1, 2, 3, 4]);
        let parts = ValueKind::ALL.map(|kind| kind.parts().join(" "));
        let expected = [
            "browser os device",
            "country language",
            "referrer",
            "utm_source utm_medium utm_campaign",
        ];
        assert_eq!(parts, expected);
    }
}
