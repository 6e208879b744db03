//! Memory of a component. The C library's allocator keeps a heap in shape for years; an instance of a
//! policy lives for one decision, in which the request alone is some thirty allocations.
//!
//! Sizes are rounded up to a class; what is freed waits in its class's list and is given out again; what
//! is fresh is cut off the end. Nothing is merged and nothing is given back.

#![expect(unsafe_code, reason = "an allocator deals in addresses")]

use std::ptr;

/// Every block begins at a multiple of this, and holds the link of a free one.
const GRAIN: usize = 16;
/// Up to here a class for each grain, above it one for each power of two.
const FINE: usize = 1 << 10;
const FINE_CLASSES: usize = FINE / GRAIN;
/// For every power of two above [`FINE`] that an address can hold.
const CLASSES: usize = FINE_CLASSES + usize::BITS as usize - FINE.ilog2() as usize;
/// Asked of the source at least: enough that `evaluate` seldom has to ask after `configure` did.
const CHUNK: usize = 64 << 10;
/// A block is kept when it shrinks unless at least this much would lie idle.
const SPARE: usize = 1 << 10;

/// Where fresh memory comes from.
pub(crate) trait Source {
    /// At least so many bytes at a multiple of 16, used by nobody: where they begin and how many they are.
    fn grow(&mut self, bytes: usize) -> Option<(*mut u8, usize)>;
}

/// The heap: what is free in each class, and what was never given out.
pub(crate) struct Heap<S> {
    free: [*mut u8; CLASSES],
    fresh: *mut u8,
    left: usize,
    source: S,
}

/// A class and the size of its blocks; none for sizes that no memory holds.
fn class(size: usize) -> Option<(usize, usize)> {
    if size <= FINE {
        let grains = size.div_ceil(GRAIN).max(1);
        return Some((grains - 1, grains * GRAIN));
    }
    let rounded = size.checked_next_power_of_two()?;
    Some((FINE_CLASSES + (rounded.ilog2() - FINE.ilog2()) as usize - 1, rounded))
}

impl<S: Source> Heap<S> {
    pub(crate) const fn new(source: S) -> Self {
        Self { free: [ptr::null_mut(); CLASSES], fresh: ptr::null_mut(), left: 0, source }
    }

    /// A block of at least `size` bytes; null when there is no memory.
    pub(crate) fn allocate(&mut self, size: usize, align: usize) -> *mut u8 {
        if align > GRAIN {
            return self.aligned(size, align).unwrap_or(ptr::null_mut());
        }
        let Some((class, size)) = class(size) else { return ptr::null_mut() };
        match self.free.get_mut(class) {
            Some(head) if !head.is_null() => {
                let block = *head;
                // SAFETY: a block in a list is free, and its first bytes are the link that `release` wrote.
                *head = unsafe { block.cast::<*mut u8>().read() };
                block
            }
            _ => self.cut(size).unwrap_or(ptr::null_mut()),
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from this heap with this `size` and `align`, and nobody uses it any more.
    pub(crate) unsafe fn release(&mut self, block: *mut u8, size: usize, align: usize) {
        // Rare, and its class has neighbours of another alignment: it is not given out again.
        if align > GRAIN {
            return;
        }
        let Some(head) = class(size).and_then(|(class, _)| self.free.get_mut(class)) else { return };
        // SAFETY: the block is the heap's again, is at a multiple of 16 and has room for a link.
        unsafe { block.cast::<*mut u8>().write(*head) };
        *head = block;
    }

    /// A block of another size with what the old one held; null when there is no memory, and then the
    /// old one stays.
    ///
    /// # Safety
    /// As for [`Heap::release`], except that what the block holds is still wanted.
    pub(crate) unsafe fn resize(&mut self, block: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
        if align <= GRAIN && self.fits(block, old, new) {
            return block;
        }
        let moved = self.allocate(new, align);
        if !moved.is_null() {
            // SAFETY: both blocks hold at least the smaller size, and a new block overlaps no used one.
            unsafe {
                ptr::copy_nonoverlapping(block, moved, old.min(new));
                self.release(block, old, align);
            }
        }
        moved
    }

    /// Whether a block can stay where it is.
    fn fits(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let (Some((_, has)), Some((_, wants))) = (class(old), class(new)) else { return false };
        if wants <= has {
            // It goes to the smaller class in the end, which only wastes what is beyond.
            return has - wants < SPARE;
        }
        // The last block that was cut grows where it is.
        let more = wants - has;
        if block.wrapping_add(has) != self.fresh || more > self.left {
            return false;
        }
        self.fresh = self.fresh.wrapping_add(more);
        self.left -= more;
        true
    }

    /// Fresh memory; `size` is a multiple of [`GRAIN`].
    fn cut(&mut self, size: usize) -> Option<*mut u8> {
        if size > self.left {
            let (start, got) = self.source.grow(size.max(CHUNK))?;
            if start == self.fresh.wrapping_add(self.left) {
                self.left += got;
            } else {
                (self.fresh, self.left) = (start, got);
            }
        }
        let block = self.fresh;
        self.fresh = block.wrapping_add(size);
        self.left -= size;
        Some(block)
    }

    fn aligned(&mut self, size: usize, align: usize) -> Option<*mut u8> {
        let block = self.cut(size.checked_add(align)?.checked_next_multiple_of(GRAIN)?)?;
        Some(block.wrapping_add(block.align_offset(align)))
    }
}

#[cfg(all(target_family = "wasm", feature = "allocator"))]
mod component {
    use std::alloc::{GlobalAlloc, Layout};
    use std::cell::UnsafeCell;

    use super::{Heap, Source};

    const PAGE: usize = 64 << 10;

    /// The first memory is a part of the component's own: asking for more costs a call of the kernel, which a
    /// decision that starts from the module would pay for.
    #[repr(align(16))]
    struct First(UnsafeCell<[u8; FIRST]>);

    const FIRST: usize = 64 << 10;

    // SAFETY: a component has one thread, and only the heap knows of it.
    unsafe impl Sync for First {}

    static FIRST_MEMORY: First = First(UnsafeCell::new([0; FIRST]));

    struct Pages {
        /// The first memory was given out.
        begun: bool,
    }

    impl Source for Pages {
        fn grow(&mut self, bytes: usize) -> Option<(*mut u8, usize)> {
            if !self.begun && bytes <= FIRST {
                self.begun = true;
                return Some((FIRST_MEMORY.0.get().cast(), FIRST));
            }
            let pages = bytes.div_ceil(PAGE);
            let at = core::arch::wasm32::memory_grow::<0>(pages);
            (at != usize::MAX).then(|| ((at * PAGE) as *mut u8, pages * PAGE))
        }
    }

    struct Component(UnsafeCell<Heap<Pages>>);

    // SAFETY: a component has one thread.
    unsafe impl Sync for Component {}

    #[global_allocator]
    static COMPONENT: Component = Component(UnsafeCell::new(Heap::new(Pages { begun: false })));

    impl Component {
        #[expect(clippy::mut_from_ref, reason = "one thread, and no method of the heap calls back")]
        fn heap(&self) -> &mut Heap<Pages> {
            // SAFETY: each caller is done with the heap before there can be another.
            unsafe { &mut *self.0.get() }
        }
    }

    // SAFETY: blocks are as large and as aligned as asked for, and no two in use overlap.
    unsafe impl GlobalAlloc for Component {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.heap().allocate(layout.size(), layout.align())
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise.
            unsafe { self.heap().release(block, layout.size(), layout.align()) }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, new: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { self.heap().resize(block, layout.size(), layout.align(), new) }
        }
    }

    /// How the host places a request. The C library has one too, for its own allocator; what comes
    /// from there must not be freed here.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
        let heap = COMPONENT.heap();
        let block = match (old_size, size) {
            (_, 0) => return align as *mut u8,
            (0, _) => heap.allocate(size, align),
            // SAFETY: the host gives what it got here.
            _ => unsafe { heap.resize(old, old_size, align, size) },
        };
        if block.is_null() {
            core::arch::wasm32::unreachable();
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory in chunks, each with a gap before it or not.
    struct Chunks {
        memory: Vec<u128>,
        used: usize,
        gap: usize,
    }

    impl Source for Chunks {
        fn grow(&mut self, bytes: usize) -> Option<(*mut u8, usize)> {
            let start = self.used + self.gap;
            let grains = bytes.div_ceil(GRAIN);
            let chunk = self.memory.get_mut(start..start + grains)?;
            self.used = start + grains;
            Some((chunk.as_mut_ptr().cast(), grains * GRAIN))
        }
    }

    fn heap(mib: usize, gap: usize) -> Heap<Chunks> {
        Heap::new(Chunks { memory: vec![u128::MAX; (mib << 20) / GRAIN], used: 0, gap })
    }

    /// A block in use and what was written into all of it.
    struct Block {
        at: *mut u8,
        size: usize,
        align: usize,
        mark: u8,
    }

    impl Block {
        fn fill(&mut self, mark: u8) {
            self.mark = mark;
            unsafe { self.at.write_bytes(mark, self.size) };
        }

        fn holds(&self, size: usize) -> bool {
            (0..size.min(self.size)).all(|i| unsafe { self.at.add(i).read() } == self.mark)
        }
    }

    #[test]
    fn classes_are_no_smaller_than_asked_and_no_two_are_alike() {
        let mut last = (usize::MAX, 0);
        for size in (0..5_000).chain((12..62).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            let (index, rounded) = class(size).unwrap();
            assert!(rounded >= size && rounded.is_multiple_of(GRAIN) && index < CLASSES, "{size}");
            assert!(index == last.0 || rounded != last.1, "{size}");
            assert_eq!(class(rounded), Some((index, rounded)));
            last = (index, rounded);
        }
        assert_eq!(class(usize::MAX), None);
    }

    #[test]
    fn blocks_in_use_never_overlap() {
        for gap in [0, 1] {
            let mut heap = heap(64, gap);
            let mut blocks: Vec<Block> = Vec::new();
            let mut state = 7_u64;
            let mut draw = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            for turn in 0..60_000 {
                let mark = (turn % 251) as u8;
                let below = [40, 400, 5_000][draw(3)];
                let size = 1 + draw(below);
                match draw(if blocks.len() > 300 { 5 } else { 3 }) {
                    0 if !blocks.is_empty() => {
                        let mut block = blocks.swap_remove(draw(blocks.len()));
                        assert!(block.holds(block.size));
                        block.at = unsafe { heap.resize(block.at, block.size, block.align, size) };
                        assert!(block.holds(size), "what it held moves with it");
                        block.size = size;
                        block.fill(mark);
                        blocks.push(block);
                    }
                    0..=2 => {
                        let align = if draw(50) == 0 { 64 } else { 1 << draw(5) };
                        let at = heap.allocate(size, align);
                        assert!(!at.is_null() && at.addr().is_multiple_of(align));
                        let mut block = Block { at, size, align, mark };
                        block.fill(mark);
                        blocks.push(block);
                    }
                    _ => {
                        let block = blocks.swap_remove(draw(blocks.len()));
                        assert!(block.holds(block.size), "nobody else wrote into it");
                        unsafe { heap.release(block.at, block.size, block.align) };
                    }
                }
            }
            assert!(blocks.iter().all(|block| block.holds(block.size)));
        }
    }

    #[test]
    fn what_is_freed_is_given_out_again() {
        let mut heap = heap(1, 0);
        for _ in 0..100_000 {
            let (a, b) = (heap.allocate(100, 8), heap.allocate(3_000, 1));
            assert!(!a.is_null() && !b.is_null());
            unsafe {
                heap.release(a, 100, 8);
                heap.release(b, 3_000, 1);
            }
        }
    }

    #[test]
    fn the_last_block_grows_where_it_is() {
        let mut heap = heap(1, 0);
        let block = heap.allocate(10, 1);
        assert_eq!(unsafe { heap.resize(block, 10, 1, 2_000) }, block);
        let next = heap.allocate(10, 1);
        assert_ne!(unsafe { heap.resize(block, 2_000, 1, 5_000) }, block);
        assert_eq!(unsafe { heap.resize(next, 10, 1, 4) }, next);
    }

    #[test]
    fn no_memory_is_null_and_the_old_block_stays() {
        let mut heap = heap(1, 0);
        assert!(heap.allocate(2 << 20, 1).is_null());
        assert!(heap.allocate(usize::MAX, 1).is_null());
        assert!(heap.allocate(usize::MAX - 8, 4_096).is_null());
        let mut block = Block { at: heap.allocate(64, 8), size: 64, align: 8, mark: 0 };
        block.fill(9);
        assert!(unsafe { heap.resize(block.at, 64, 8, 2 << 20) }.is_null());
        assert!(block.holds(64));
    }
}
