//! Where a generator's decisions come from: bytes that shrink, or a seed that never ends.

/// A source of decisions.
pub enum Choices<'b> {
    /// These bytes, then nothing but 0: the plainest decision.
    Bytes(&'b [u8]),
    /// SplitMix64 of a seed.
    Seed(u64),
}

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        match self {
            Choices::Bytes(bytes) => bytes.split_off_first().copied().unwrap_or(0),
            Choices::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed >> 33) as u8
            }
        }
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = if bound <= 256 {
            u32::from(self.byte())
        } else {
            self.u32()
        };
        wide as usize % bound
    }

    /// True once in `n` times; never where the bytes have ended.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}
