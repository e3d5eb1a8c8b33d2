//! What callgrind is told by: it counts inside [`counted`] only, and ends a part's count at [`part_ends`].
//!
//! It finds both by their names, which must not be those of anything else.

use std::hint::black_box;

/// The pattern of [`counted`]'s name, in any instance.
pub(crate) const COUNTED: &str = "*::count::counted*";
/// The pattern of [`part_ends`]'s name.
pub(crate) const PART_ENDS: &str = "*::count::part_ends*";

/// Does `work`, whose instructions count.
#[inline(never)]
pub(crate) fn counted<R>(work: impl FnOnce() -> R) -> R {
    let result = work();
    // Not a tail call: that would leave this function before the work is done.
    black_box(());
    result
}

/// Does `work`, whose instructions count if `charged`.
pub(crate) fn charge<R>(charged: bool, work: impl FnOnce() -> R) -> R {
    if charged { counted(work) } else { work() }
}

/// The part is over.
#[inline(never)]
fn part_ends() {
    black_box(());
}

/// Runs the parts and tells on standard output which ones they were.
#[derive(Debug)]
pub(crate) struct Parts {
    filter: Option<String>,
    work: bool,
}

impl Parts {
    /// Parts whose name contains `filter`, or all. Without `work` they are named and not run.
    pub(crate) const fn new(filter: Option<String>, work: bool) -> Self {
        Self { filter, work }
    }

    /// A part. `run` does the work, some of it [`counted`], and returns for how many packets.
    pub(crate) fn part(&mut self, name: &str, run: impl FnOnce() -> u64) {
        if self.filter.as_ref().is_some_and(|f| !name.contains(f)) {
            return;
        }
        if !self.work {
            println!("{name}");
            return;
        }
        let packets = run();
        assert!(packets > 0, "{name}: no packet");
        part_ends();
        println!("{packets}\t{name}");
    }
}
