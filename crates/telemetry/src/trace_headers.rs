//! Parses the W3C `traceparent` header without allocation.
//!
//! A malformed header counts as absent, so the request begins a new trace. The SDK's propagator is more lenient: it accepts
//! ids that are too short, and a trailing dash.

/// The fields of a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub trace_id: &'a str,
    /// 16 lower-case hexadecimal digits, not all zero.
    pub parent_id: &'a str,
    /// Bit 0: the caller recorded its span.
    pub flags: u8,
}

/// The trace id of a valid `traceparent`.
pub fn trace_id_from_traceparent(header: &str) -> Option<&str> {
    parse_traceparent(header).map(|parent| parent.trace_id)
}

/// Parses `version-trace_id-parent_id-flags`.
///
/// Version `00` must end there. A later version may have more after another dash. `ff` is not valid.
pub fn parse_traceparent(header: &str) -> Option<TraceParent<'_>> {
    let mut parts = header.splitn(5, '-');
    let version = parts.next().filter(|part| is_lower_hex(part, 2) && *part != "ff")?;
    let trace_id = parts.next().filter(|part| is_id(part, 32))?;
    let parent_id = parts.next().filter(|part| is_id(part, 16))?;
    let flags = parts.next().filter(|part| is_lower_hex(part, 2))?;
    if version == "00" && parts.next().is_some() {
        return None;
    }
    Some(TraceParent { trace_id, parent_id, flags: u8::from_str_radix(flags, 16).ok()? })
}

fn is_lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str, length: usize) -> bool {
    is_lower_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_valid_header_is_split_into_its_parts() {
        let parsed = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let expected = TraceParent { trace_id: TRACE, parent_id: "00f067aa0ba902b7", flags: 1 };
        assert_eq!(parsed, Some(expected));
    }

    #[test]
    fn a_later_version_may_be_longer() {
        let header = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-else";
        assert_eq!(trace_id_from_traceparent(header), Some(TRACE));
    }

    #[test]
    fn a_malformed_header_counts_as_absent() {
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(parse_traceparent(header), None, "{header}");
        }
    }
}
