//! The identity of the running program.

/// Names the program in `build_info`, in the readiness report, and in the resource of its spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// The service's name, such as `gateway`.
    pub name: &'static str,
    /// The crate's version.
    pub version: &'static str,
    /// The deployed release: a commit, a tag, or an image's digest.
    pub release: &'static str,
}
