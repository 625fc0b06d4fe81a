//! ECDSA signatures on P-256: the raw form of key vaults into the DER form of everyone else.

const SCALAR_BYTES: usize = 32;
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The DER form of a signature that is raw (r and s, 32 bytes each) or DER already; none if it is neither.
pub(super) fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    if is_der(signature) {
        return Some(signature.to_vec());
    }
    if signature.len() != 2 * SCALAR_BYTES {
        return None;
    }
    let (r, s) = signature.split_at(SCALAR_BYTES);
    let body = [integer(r), integer(s)].concat();
    Some([&[SEQUENCE, body.len() as u8], &body[..]].concat())
}

fn is_der(signature: &[u8]) -> bool {
    let Some((&[SEQUENCE, length], body)) = signature.split_first_chunk() else {
        return false;
    };
    let take = |bytes: &mut &[u8]| {
        let (&[INTEGER, length], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        *bytes = rest;
        (1..=SCALAR_BYTES + 1).contains(&value.len()).then_some(())
    };
    let mut rest = body;
    usize::from(length) == body.len()
        && take(&mut rest).is_some()
        && take(&mut rest).is_some()
        && rest.is_empty()
}

/// Unsigned, in as few bytes as its sign allows.
fn integer(scalar: &[u8]) -> Vec<u8> {
    let start = scalar
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(scalar.len() - 1);
    let digits = &scalar[start..];
    let padding: &[u8] = if digits[0] & 0x80 != 0 { &[0] } else { &[] };
    [
        &[INTEGER, (padding.len() + digits.len()) as u8],
        padding,
        digits,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_becomes_der_in_as_few_bytes_as_its_sign_allows() {
        let mut raw = [0; 64];
        raw[31] = 0x80;
        raw[63] = 0x7f;
        let der = to_der(&raw).unwrap();
        assert_eq!(der, [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]);
        assert_eq!(to_der(&der).as_deref(), Some(&der[..]));
        assert_eq!(to_der(&[0xff; 64]).unwrap().len(), 72);
        assert_eq!(to_der(&[0; 63]), None);
        assert_eq!(to_der(b""), None);
    }
}
