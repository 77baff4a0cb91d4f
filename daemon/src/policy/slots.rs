//! Small numbers with identity. A number belongs to its value for as long as any plane may hold an
//! entry under it.

/// At most `N` values, each with a number that keeps its meaning: a value no longer used is
/// *retired* by one [`Slots::retain`], and its number is free only after the next, when every plane
/// has rewritten its entries.
#[derive(Clone, Debug)]
pub struct Slots<T, const N: usize>(Vec<Slot<T>>);

#[derive(Clone, Debug)]
enum Slot<T> {
    Free,
    Used(T),
    Retired(T),
}

/// All `N` numbers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<T, const N: usize> Default for Slots<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Eq + Clone, const N: usize> Slots<T, N> {
    /// The number of `value`; an equal value always gets the same one.
    ///
    /// # Errors
    /// When all `N` are taken.
    pub fn claim(&mut self, value: &T) -> Result<usize, Full> {
        let holds = |slot: &Slot<T>| matches!(slot, Slot::Used(v) | Slot::Retired(v) if v == value);
        let free = |slot: &Slot<T>| matches!(slot, Slot::Free);
        let index = match self
            .0
            .iter()
            .position(holds)
            .or_else(|| self.0.iter().position(free))
        {
            Some(index) => index,
            None if self.0.len() < N => {
                self.0.push(Slot::Free);
                self.0.len() - 1
            }
            None => return Err(Full),
        };
        self.0[index] = Slot::Used(value.clone());
        Ok(index)
    }

    /// Keeps the numbers that `used` accepts; the rest retire, and what had retired before becomes
    /// free.
    pub fn retain(&mut self, used: impl Fn(usize) -> bool) {
        for (index, slot) in self.0.iter_mut().enumerate() {
            if used(index) {
                continue;
            }
            *slot = match std::mem::replace(slot, Slot::Free) {
                Slot::Used(value) => Slot::Retired(value),
                Slot::Retired(_) | Slot::Free => Slot::Free,
            };
        }
    }

    /// Every number in use with its value, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot {
                Slot::Used(value) => Some((index, value)),
                Slot::Retired(_) | Slot::Free => None,
            })
    }

    /// The value of a number, while it is in use.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        match self.0.get(index)? {
            Slot::Used(value) => Some(value),
            Slot::Retired(_) | Slot::Free => None,
        }
    }
}
