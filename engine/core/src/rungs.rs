//! The prices of one side in their order: a sorted vector with the best at the tail, where nearly
//! everything happens.

/// Levels next to the best that a search looks at one by one before it halves the rest.
const SCAN_LEVELS: usize = 8;

/// Levels around a hint among which a search looks first.
const NEAR_LEVELS: usize = 32;

/// A price in the order of prices. As narrow as it can be: the levels themselves stay where they are
/// when prices come and go.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// See `levels::rank`.
    pub rank: i64,
    /// Of the level.
    pub place: u32,
}

/// Ascending, each rank once.
#[derive(Default)]
pub struct Rungs(Vec<Rung>);

impl Rungs {
    /// How many.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The highest: the best price.
    #[inline(always)]
    pub fn best(&self) -> Option<&Rung> {
        self.0.last()
    }

    /// The place of the level at this rung.
    #[inline(always)]
    pub fn place(&self, at: usize) -> u32 {
        self.0[at].place
    }

    /// Ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Rung> {
        self.0.iter()
    }

    /// Where this rank is among the rungs, or where it would go.
    #[inline(always)]
    pub fn find(&self, rank: i64) -> Result<usize, usize> {
        let near = self.0.len().saturating_sub(SCAN_LEVELS);
        if near > 0 && rank < self.0[near].rank {
            return self.find_far(rank, near);
        }
        let mut at = self.0.len();
        for other in self.0[near..].iter().rev() {
            if other.rank <= rank {
                return if other.rank == rank {
                    Ok(at - 1)
                } else {
                    Err(at)
                };
            }
            at -= 1;
        }
        Err(at)
    }

    #[inline(never)]
    fn find_far(&self, rank: i64, near: usize) -> Result<usize, usize> {
        let far = &self.0[..near];
        let at = far.partition_point(|rung| rung.rank < rank);
        match far.get(at) {
            Some(rung) if rung.rank == rank => Ok(at),
            _ => Err(at),
        }
    }

    /// As `find`, for a rank that is probably close to this rung.
    #[inline(never)]
    pub fn find_near(&self, rank: i64, hint: u32) -> Result<usize, usize> {
        let first = (hint as usize).saturating_sub(NEAR_LEVELS / 2);
        let Some(window) = self.0.get(first..).and_then(<[Rung]>::first_chunk) else {
            return self.find(rank);
        };
        let window: &[Rung; NEAR_LEVELS] = window;
        let at = window.partition_point(|rung| rung.rank < rank);
        match window.get(at) {
            Some(rung) if rung.rank == rank => Ok(first + at),
            Some(_) if at > 0 => Err(first + at),
            _ => self.find(rank),
        }
    }

    /// Puts a rung where its rank was found to go.
    pub fn insert(&mut self, at: usize, rung: Rung) {
        self.0.insert(at, rung);
    }

    /// Takes a rung out.
    pub fn remove(&mut self, at: usize) {
        self.0.remove(at);
    }

    /// Takes the best one out.
    pub fn pop(&mut self) {
        self.0.pop();
    }

    /// Gives a rung another rank, which was found to go to `new`; returns where it is now.
    pub fn change(&mut self, old: usize, new: usize, rung: Rung) -> usize {
        let now = if new > old {
            self.0.copy_within(old + 1..new, old);
            new - 1
        } else {
            self.0.copy_within(new..old, new + 1);
            new
        };
        self.0[now] = rung;
        now
    }

    /// Whether they ascend.
    pub fn ascend(&self) -> bool {
        self.0.is_sorted_by(|left, right| left.rank < right.rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rungs(ranks: impl IntoIterator<Item = i64>) -> Rungs {
        Rungs(
            ranks
                .into_iter()
                .map(|rank| Rung {
                    rank,
                    place: rank as u32,
                })
                .collect(),
        )
    }

    #[test]
    fn every_search_finds_what_halving_finds() {
        for len in [0, 1, 7, 8, 9, 31, 32, 33, 100] {
            let rungs = rungs((0..len).map(|at| 10 * at));
            for rank in -5..10 * len + 5 {
                let expected = rungs.0.binary_search_by(|rung| rung.rank.cmp(&rank));
                assert_eq!(rungs.find(rank), expected);
                for hint in 0..len as u32 + 3 {
                    assert_eq!(rungs.find_near(rank, hint), expected);
                }
            }
        }
    }

    #[test]
    fn a_changed_rung_is_where_its_rank_belongs() {
        for old in 0..9 {
            for rank in -5..95 {
                let mut rungs = rungs((0..9).map(|at| 10 * at));
                let Err(new) = rungs.find(rank) else { continue };
                let now = rungs.change(old, new, Rung { rank, place: 0 });
                assert!(rungs.ascend() && rungs.0[now].rank == rank);
            }
        }
    }
}
