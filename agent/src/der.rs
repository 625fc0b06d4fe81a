//! Receives a certificate; hands on when it ends. Receives a key and a signature; hands on a certificate request.
//!
//! DER (X.690) as far as that, and no further: whether a certificate can be trusted is TLS's to judge, which reads it by
//! itself. Whatever the bytes are, reading them ends, and is no panic.

use drift::key::p256_spki;
use drift::statement::Timestamp;
use rustls::pki_types::alg_id;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// What is optional has a number in its place: of a certificate the version, of a request the attributes.
const ZEROTH: u8 = 0xa0;

/// When a certificate (RFC 5280 §4.1) ends, seconds since 1970; none where the bytes are no certificate.
pub(crate) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (certificate, []) = expect(certificate, SEQUENCE)? else {
        return None;
    };
    let (fields, _) = expect(certificate, SEQUENCE)?;
    let fields = expect(fields, ZEROTH).map_or(fields, |(_, rest)| rest);
    let (_serial, fields) = expect(fields, INTEGER)?;
    let (_algorithm, fields) = expect(fields, SEQUENCE)?;
    let (_issuer, fields) = expect(fields, SEQUENCE)?;
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (_, _not_before, validity) = element(validity)?;
    let (tag, not_after, []) = element(validity)? else {
        return None;
    };
    let text = std::str::from_utf8(not_after).ok()?;
    // RFC 5280 §4.1.2.5: always with seconds and in UTC; two digits of a year are from 1950 to 2049.
    let text = match tag {
        UTC_TIME if text.len() == 13 => {
            format!("{}{text}", if text < "50" { "20" } else { "19" })
        }
        GENERALIZED_TIME if text.len() == 15 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, time) = (
        [part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-"),
        [part(8, 10)?, part(10, 12)?, part(12, 15)?].join(":"),
    );
    let time: Timestamp = format!("{date}T{time}").parse().ok()?;
    Some(time.unix_seconds())
}

/// What is signed of a certificate request (RFC 2986 §4.1) for a public key on P-256, an uncompressed point. It asks for
/// no name and has no attributes.
pub(crate) fn request_of(public_key: &[u8]) -> Vec<u8> {
    let key = p256_spki(public_key);
    let (version, no_name) = (written(INTEGER, &[&[0]]), sequence(&[]));
    sequence(&[&version, &no_name, &key, &written(ZEROTH, &[])])
}

/// A certificate request with its signature by ECDSA with SHA-256.
pub(crate) fn signed(request: &[u8], signature: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[&alg_id::ECDSA_SHA256]);
    sequence(&[request, &algorithm, &bit_string(signature)])
}

/// The content of the first element, which must be of this kind, and what follows it.
fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Kind and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // A certificate is not longer than three bytes can say.
        0x81..=0x83 => {
            let (long, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = long
                .iter()
                .fold(0, |length, &byte| (length << 8) | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A sequence of what is already written.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    written(SEQUENCE, parts)
}

/// Whole bytes: none of the last one's bits is unused.
fn bit_string(bytes: &[u8]) -> Vec<u8> {
    written(BIT_STRING, &[&[0], bytes])
}

fn written(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|&&byte| byte == 0).count();
    let mut element = match &length[zeros..] {
        [] => vec![tag, 0],
        [short @ 0..=0x7f] => vec![tag, *short],
        // As many as a length has at most: eight.
        long => [&[tag, 0x80 | long.len() as u8], long].concat(),
    };
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn ending(year: i32, month: u8, day: u8) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["instance".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1949, 12, 31);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_ways_of_writing_it() {
        for (year, month, day, seconds) in [
            (1950, 1, 1, -631_152_000),
            (1999, 12, 31, 946_598_400),
            (2026, 11, 30, 1_795_996_800),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (9999, 12, 31, 253_402_214_400),
        ] {
            let certificate = ending(year, month, day);
            assert_eq!(not_after(&certificate), Some(seconds), "{year}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_short_or_goes_on_has_no_end() {
        let mut certificate = ending(2026, 11, 30);
        for length in 0..certificate.len() {
            assert_eq!(not_after(&certificate[..length]), None, "{length}");
        }
        certificate.push(0);
        assert_eq!(not_after(&certificate), None);
    }

    #[test]
    fn an_element_of_any_length_is_read_back() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let written = [sequence(&[&content]), vec![9]].concat();
            assert_eq!(element(&written), Some((SEQUENCE, &content[..], &[9][..])));
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_reading_them_ends(bytes: Vec<u8>) {
            not_after(&bytes);
        }

        #[test]
        fn a_certificate_with_altered_bytes_is_read_to_some_end(
            altered in prop::collection::vec((0_usize..400, any::<u8>()), 1..8),
        ) {
            let mut certificate = ending(2026, 11, 30);
            for (at, byte) in altered {
                let at = at % certificate.len();
                certificate[at] = byte;
            }
            not_after(&certificate);
        }
    }
}
