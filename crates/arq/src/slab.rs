//! Storage of segment payloads: equal slots, handed out by number, in pages that come and go.
//!
//! A slot costs no allocation while a free one exists. The last one freed is the next one given, so a reader that
//! keeps up stays within the same few cache lines. Pages go back to the allocator when the slab has become empty and
//! held far more than lately needed, or on [`Slab::release`].

/// Slots in one page.
const PAGE: u32 = 16;
/// Slots in the first page until more are needed at once; then it doubles. A conversation at rest passes one segment now and then, and
/// there may be thousands of those.
const FIRST: u32 = 1;
/// Slots that are never worth giving back while the conversation is busy.
const KEEP: u32 = 4 * PAGE;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab {
    slot_len: usize,
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
    live: u32,
    /// Most slots in use since the slab was last empty.
    peak: u32,
    /// What recent peaks justify keeping; decays each time the slab becomes empty.
    keep: u32,
}

impl Slab {
    /// A slab of slots of `slot_len` bytes, holding no memory yet.
    pub(crate) fn new(slot_len: usize) -> Self {
        Self {
            slot_len,
            pages: Vec::new(),
            free: Vec::new(),
            live: 0,
            peak: 0,
            keep: 0,
        }
    }

    /// A slot with arbitrary content.
    #[inline]
    pub(crate) fn alloc(&mut self) -> u32 {
        self.live += 1;
        self.peak = self.peak.max(self.live);
        match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(),
        }
    }

    /// Gives `slot` back.
    #[inline]
    pub(crate) fn free(&mut self, slot: u32) {
        self.free.push(slot);
        self.live -= 1;
        if self.live == 0 {
            self.emptied();
        }
    }

    /// The whole slot.
    #[inline]
    pub(crate) fn slot_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = (slot % PAGE) as usize * self.slot_len;
        &mut self.pages[(slot / PAGE) as usize][at..at + self.slot_len]
    }

    /// The first `len` bytes of the slot.
    #[inline]
    pub(crate) fn bytes(&self, slot: u32, len: usize) -> &[u8] {
        let at = (slot % PAGE) as usize * self.slot_len;
        &self.pages[(slot / PAGE) as usize][at..at + len]
    }

    /// Bytes held for slots, used or not.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.pages[..] {
            [page] => page.len(),
            // The first one has grown to its full size before there is a second.
            pages => pages.len() * PAGE as usize * self.slot_len,
        }
    }

    /// Gives all memory back if no slot is in use.
    pub(crate) fn release(&mut self) {
        if self.live == 0 {
            self.pages = Vec::new();
            self.free = Vec::new();
            self.keep = 0;
        }
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let full = PAGE as usize * self.slot_len;
        let (first, end) = match &mut self.pages[..] {
            [] => {
                let few = FIRST as usize * self.slot_len;
                self.pages.push(vec![0; few].into_boxed_slice());
                (0, FIRST)
            }
            [page] if page.len() < full => {
                let mut slots = std::mem::take(page).into_vec();
                let had = slots.len();
                slots.resize(2 * had, 0);
                *page = slots.into_boxed_slice();
                let slot = |bytes: usize| u32::try_from(bytes / self.slot_len).unwrap_or(PAGE);
                (slot(had), slot(2 * had))
            }
            pages => {
                let first = u32::try_from(pages.len()).unwrap_or(u32::MAX / PAGE) * PAGE;
                self.pages.push(vec![0; full].into_boxed_slice());
                (first, first + PAGE)
            }
        };
        self.free.extend((first + 1..end).rev());
        first
    }

    fn emptied(&mut self) {
        self.keep = (self.keep - self.keep / 8).max(self.peak).max(KEEP);
        self.peak = 0;
        let wanted = self.keep.div_ceil(PAGE) as usize;
        if self.pages.len() > 2 * wanted {
            self.pages.truncate(wanted);
            self.free.clear();
            self.free.shrink_to(wanted * PAGE as usize);
            self.free
                .extend((0..u32::try_from(wanted).unwrap_or(0) * PAGE).rev());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_and_reused() {
        let mut slab = Slab::new(8);
        let slots: Vec<u32> = (0..40).map(|_| slab.alloc()).collect();
        for &s in &slots {
            slab.slot_mut(s).fill(u8::try_from(s).expect("small"));
        }
        for &s in &slots {
            assert_eq!(slab.bytes(s, 8), [u8::try_from(s).expect("small"); 8]);
        }
        let held = slab.held_bytes();
        assert_eq!(held, 3 * 16 * 8);
        slab.free(slots[7]);
        assert_eq!(slab.alloc(), slots[7]);
        for &s in &slots {
            slab.free(s);
        }
        assert_eq!(slab.held_bytes(), held);
        slab.release();
        assert_eq!(slab.held_bytes(), 0);
        assert_eq!(slab.alloc(), 0);
    }

    #[test]
    fn a_burst_is_given_back_by_and_by() {
        let mut slab = Slab::new(100);
        let burst: Vec<u32> = (0..10_000).map(|_| slab.alloc()).collect();
        burst.into_iter().for_each(|s| slab.free(s));
        let held = slab.held_bytes();
        assert!(held >= 1_000_000);
        for _ in 0..64 {
            let s = slab.alloc();
            slab.free(s);
        }
        assert!(
            slab.held_bytes() <= 2 * KEEP as usize * 100,
            "{}",
            slab.held_bytes()
        );
        // What is left works.
        let again: Vec<u32> = (0..200).map(|_| slab.alloc()).collect();
        let mut sorted = again.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 200);
        again.into_iter().for_each(|s| slab.free(s));
    }
}
