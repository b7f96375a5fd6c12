//! Numbers to small indices: open addressing with a fixed hash, so that every machine does the
//! same.

/// The index that means "none", here and in the queues of a book.
pub const NIL: u32 = u32::MAX;

const SLOTS_MIN: usize = 64;
/// 2^64 divided by the golden ratio: consecutive ids, the usual ones, spread evenly.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Clone, Copy)]
struct Slot {
    id: u64,
    index: u32,
}

const EMPTY: Slot = Slot { id: 0, index: NIL };

/// An id under which nothing is filed, and its slot.
#[derive(Clone, Copy)]
pub struct Vacancy {
    id: u64,
    at: usize,
}

/// At most half full. Its order never reaches an output.
pub struct IdMap {
    slots: Vec<Slot>,
    len: usize,
    shift: u32,
}

impl Default for IdMap {
    fn default() -> Self {
        Self::with_slots(SLOTS_MIN)
    }
}

impl IdMap {
    fn with_slots(slots: usize) -> Self {
        Self {
            slots: vec![EMPTY; slots],
            len: 0,
            shift: 64 - slots.trailing_zeros(),
        }
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn home(&self, id: u64) -> usize {
        (id.wrapping_mul(MULTIPLIER) >> self.shift) as usize
    }

    /// The slot of this id, or the empty one where it would go.
    #[inline]
    fn slot(&self, id: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(id);
        loop {
            let slot = &self.slots[at];
            if slot.index == NIL || slot.id == id {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The index filed under this id.
    #[inline]
    pub fn get(&self, id: u64) -> Option<u32> {
        let index = self.slots[self.slot(id)].index;
        (index != NIL).then_some(index)
    }

    /// Where this id would be filed, if nothing is filed under it. Good until the map changes.
    #[inline(always)]
    pub fn vacancy(&self, id: u64) -> Option<Vacancy> {
        let at = self.slot(id);
        (self.slots[at].index == NIL).then_some(Vacancy { id, at })
    }

    /// Files an index, which is not `NIL`, in a vacancy.
    #[inline(always)]
    pub fn fill(&mut self, Vacancy { id, at }: Vacancy, index: u32) {
        if (self.len + 1) * 2 > self.slots.len() {
            return self.insert(id, index);
        }
        self.slots[at] = Slot { id, index };
        self.len += 1;
    }

    /// Files an index, which is not `NIL`, under an id that has none.
    #[inline(never)]
    pub fn insert(&mut self, id: u64, index: u32) {
        debug_assert!(index != NIL && self.get(id).is_none());
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let at = self.slot(id);
        self.slots[at] = Slot { id, index };
        self.len += 1;
    }

    /// Forgets an id that it may hold. The slots behind it move up, so that no search ever meets a
    /// hole.
    #[inline]
    pub fn remove(&mut self, id: u64) {
        let mask = self.slots.len() - 1;
        let mut hole = self.slot(id);
        if self.slots[hole].index == NIL {
            return;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.index == NIL {
                break;
            }
            // It may fill the hole unless its home lies behind the hole.
            let from_home = at.wrapping_sub(self.home(slot.id)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let mut larger = Self::with_slots(self.slots.len() * 2);
        for slot in self.slots.iter().filter(|slot| slot.index != NIL) {
            let at = larger.slot(slot.id);
            larger.slots[at] = *slot;
        }
        larger.len = self.len;
        *self = larger;
    }
}

/// Numbers below this are found in a table instead: those of sessions and, as they are given, of
/// instruments.
const DIRECT: u32 = 65_536;

/// Like `IdMap`, for numbers that are small as a rule and that are never forgotten.
#[derive(Default)]
pub struct Directory {
    direct: Vec<u32>,
    far: IdMap,
}

impl Directory {
    /// The index filed under this number.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<u32> {
        match self.direct.get(number as usize) {
            Some(&index) => (index != NIL).then_some(index),
            None => self.get_far(number),
        }
    }

    #[inline(never)]
    fn get_far(&self, number: u32) -> Option<u32> {
        self.far.get(number.into())
    }

    /// Files an index, which is not `NIL`, under a number that has none.
    pub fn insert(&mut self, number: u32, index: u32) {
        if number >= DIRECT {
            return self.far.insert(number.into(), index);
        }
        let at = number as usize;
        if at >= self.direct.len() {
            self.direct.resize(at + 1, NIL);
        }
        self.direct[at] = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// xorshift64*: enough to make a long history of inserts and removals.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    #[test]
    fn agrees_with_an_ordered_map_over_a_long_history() {
        let mut state = 7;
        let mut map = IdMap::default();
        let mut expected = BTreeMap::new();
        for index in 0..200_000_u32 {
            // Few ids, close together and at both ends of the range: long runs of neighbours.
            let id = match random(&mut state) % 1_500 {
                edge if edge < 3 => u64::MAX - edge,
                id => id - 3,
            };
            if expected.remove(&id).is_some() {
                map.remove(id);
            } else {
                expected.insert(id, index);
                let vacancy = map.vacancy(id).unwrap();
                map.fill(vacancy, index);
            }
            assert_eq!(map.get(id), expected.get(&id).copied());
        }
        assert_eq!(map.len(), expected.len());
        assert!((0..1_500).all(|id| map.get(id) == expected.get(&id).copied()));
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut map = IdMap::default();
        map.insert(0, 5);
        map.remove(1);
        assert_eq!((map.len(), map.get(0), map.get(1)), (1, Some(5), None));
    }

    #[test]
    fn ids_whose_homes_collide_and_wrap_around_the_end_are_all_found() {
        let mut map = IdMap::default();
        let last = SLOTS_MIN - 1;
        let colliding: Vec<u64> = (0..).filter(|&id| map.home(id) == last).take(20).collect();
        for (index, &id) in (0..).zip(&colliding) {
            map.insert(id, index);
        }
        for gone in 0..20 {
            map.remove(colliding[gone]);
            for (index, &id) in (0..).zip(&colliding) {
                let kept = index as usize > gone;
                assert_eq!(map.get(id), kept.then_some(index));
            }
        }
    }

    #[test]
    fn a_directory_finds_numbers_near_and_far() {
        let mut directory = Directory::default();
        for (index, number) in [0, 7, DIRECT - 1, DIRECT, u32::MAX].into_iter().enumerate() {
            directory.insert(number, index as u32);
        }
        let found = [0, 7, DIRECT - 1, DIRECT, u32::MAX].map(|number| directory.get(number));
        assert_eq!(found, [0, 1, 2, 3, 4].map(Some));
        assert_eq!(
            [1, 8, DIRECT + 1].map(|number| directory.get(number)),
            [None; 3]
        );
    }
}
