//! Breadth-first search through every state of a small world, exact and in little memory.
//!
//! A state is packed into 128 bits, so the set of visited states holds the states themselves: no
//! hash collision can hide one. The first state that breaks a rule is one of the shortest ways to it.

/// A world that can be searched.
pub(crate) trait World {
    /// Where the world is. Worlds that differ only in what does not matter should be equal.
    type State: Copy;
    /// What can happen in it.
    type Step: Copy;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Tells every step that can be taken from here: what it is, and where it leads.
    fn next(&self, from: &Self::State, step: impl FnMut(Self::Step, Self::State));

    /// What is wrong with this state, if anything.
    fn broken(&self, state: &Self::State) -> Option<String>;

    /// The state in 128 bits; equal for states that are the same but for the names of their parts.
    fn pack(&self, state: &Self::State) -> u128;

    /// The inverse of [`World::pack`], with some choice of names.
    fn unpack(&self, packed: u128) -> Self::State;
}

/// What a search found.
pub(crate) struct Found<S> {
    /// How many different states.
    pub(crate) states: usize,
    /// How many steps.
    pub(crate) steps: usize,
    /// How many steps the farthest state is away.
    pub(crate) depth: usize,
    /// What is wrong, and the steps to it.
    pub(crate) broken: Option<(String, Vec<S>)>,
}

const EMPTY: u32 = u32::MAX;

/// States in the order they were found, each with the one it was reached from.
struct Visited {
    states: Vec<u128>,
    parents: Vec<u32>,
    /// Open addressing over indices into `states`; at most half full.
    slots: Vec<u32>,
}

impl Visited {
    fn new() -> Self {
        Self { states: Vec::new(), parents: Vec::new(), slots: vec![EMPTY; 1 << 16] }
    }

    fn slot_of(&self, packed: u128) -> usize {
        let folded = (packed as u64) ^ ((packed >> 64) as u64).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (folded ^ (folded >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mask = self.slots.len() - 1;
        let mut slot = (mixed ^ (mixed >> 29)) as usize & mask;
        while self.slots[slot] != EMPTY && self.states[self.slots[slot] as usize] != packed {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Whether it is new.
    fn insert(&mut self, packed: u128, parent: u32) -> bool {
        let slot = self.slot_of(packed);
        if self.slots[slot] != EMPTY {
            return false;
        }
        self.slots[slot] = u32::try_from(self.states.len()).expect("fewer than 2^32 states");
        self.states.push(packed);
        self.parents.push(parent);
        if self.states.len() * 2 > self.slots.len() {
            self.slots = vec![EMPTY; self.slots.len() * 2];
            for index in 0..self.states.len() {
                let slot = self.slot_of(self.states[index]);
                self.slots[slot] = index as u32;
            }
        }
        true
    }

    fn path_to(&self, last: u32) -> Vec<u128> {
        let mut path = vec![self.states[last as usize]];
        let mut at = last;
        while self.parents[at as usize] != EMPTY {
            at = self.parents[at as usize];
            path.push(self.states[at as usize]);
        }
        path.reverse();
        path
    }
}

/// Visits every state, or stops at the first broken one.
pub(crate) fn search<W: World>(world: &W) -> Found<W::Step> {
    let mut visited = Visited::new();
    visited.insert(world.pack(&world.initial()), EMPTY);
    let (mut at, mut steps, mut depth, mut level_ends) = (0_usize, 0_usize, 0_usize, 1_usize);
    while at < visited.states.len() {
        if at == level_ends {
            depth += 1;
            level_ends = visited.states.len();
        }
        let state = world.unpack(visited.states[at]);
        if let Some(why) = world.broken(&state) {
            let path = visited.path_to(at as u32);
            let steps_to = retrace(world, &path);
            return Found { states: visited.states.len(), steps, depth, broken: Some((why, steps_to)) };
        }
        world.next(&state, |_, next| {
            steps += 1;
            visited.insert(world.pack(&next), at as u32);
        });
        at += 1;
    }
    Found { states: visited.states.len(), steps, depth, broken: None }
}

/// The steps of a path, with names that stay the same along it.
fn retrace<W: World>(world: &W, path: &[u128]) -> Vec<W::Step> {
    let mut state = world.initial();
    let mut told = Vec::new();
    for target in &path[1..] {
        let mut taken = None;
        world.next(&state, |what, next| {
            if taken.is_none() && world.pack(&next) == *target {
                taken = Some((what, next));
            }
        });
        let (what, next) = taken.expect("each state of a path is a step from the one before it");
        told.push(what);
        state = next;
    }
    told
}
