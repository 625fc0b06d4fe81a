//! Unsigned numbers as LEB128, in their one shortest form, so that encoding is canonical.

/// The longest form: ten groups of seven bits hold 64.
const MAX_BYTES: usize = 10;

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one number from the front of `bytes`; none if it is cut short, longer than needed, or beyond 64 bits.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    // Most numbers are small.
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
    let mut value = 0u64;
    for (place, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let group = u64::from(byte & 0x7f);
        let shift = 7 * place as u32;
        if shift == 63 && group > 1 {
            return None;
        }
        value |= group << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return None;
            }
            *bytes = &bytes[place + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_form_is_taken() {
        for bad in [&[][..], &[0x80], &[0x80, 0x00], &[0xff, 0x00], &[0xff; 11]] {
            assert_eq!(take(&mut &*bad), None, "{bad:?}");
        }
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(take(&mut &beyond[..]), None);
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes.push(7);
            let mut rest = &bytes[..];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert_eq!(rest, &[7]);
        }
    }
}
