//! Records every allocation with its stack, in dhat's JSON format.

use std::path::PathBuf;

/// The global allocator of a program that records its allocations.
pub use dhat::Alloc as HeapAllocator;

/// Maximum number of frames per stack. Each frame costs time on every allocation, and the futures of a request make
/// deep stacks.
const MAX_FRAMES: usize = 40;

/// A recording. Dropping it writes the file.
#[must_use = "dropping the recording ends it"]
pub struct Recording(
    // Its drop writes the file.
    dhat::Profiler,
);

impl Recording {
    #[expect(clippy::unnecessary_wraps, reason = "the recording of CPU samples can fail to start")]
    pub(crate) fn start(out: PathBuf) -> Option<Self> {
        let profiler = dhat::Profiler::builder().file_name(out).trim_backtraces(Some(MAX_FRAMES));
        Some(Self(profiler.build()))
    }
}
