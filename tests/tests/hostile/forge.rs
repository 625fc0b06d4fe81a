//! Receives what an attacker would like a certificate or a request to say; hands it on, signed by whomever.

use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::wire::Credentials;
use crate::world::World;

/// Whoever signs certificates.
#[derive(Debug)]
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate as it would be good.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// The instance of its name.
    pub(crate) name: String,
    /// Good from so many seconds after now.
    pub(crate) from: i64,
    /// Good until so many seconds after now.
    pub(crate) until: i64,
    /// What it is for.
    pub(crate) purpose: Option<ExtendedKeyUsagePurpose>,
    /// Whether it says that it may sign others.
    pub(crate) authority: bool,
}

impl Leaf {
    /// What the collector itself would issue to an instance.
    pub(crate) fn of(instance: &str) -> Self {
        Self {
            name: instance.to_owned(),
            from: -3600,
            until: 3600,
            purpose: Some(ExtendedKeyUsagePurpose::ClientAuth),
            authority: false,
        }
    }
}

impl Ca {
    /// One that nobody trusts, by whatever name.
    pub(crate) fn own(name: &str) -> Result<Self> {
        let key = p256()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).context("sign a CA")?;
        Self::with(certificate.der().clone(), key)
    }

    /// The collector's own, with the key from its data directory: what it would sign if it made a mistake.
    pub(crate) fn of_the_collector(world: &World) -> Result<Self> {
        let read = |name: &str| {
            std::fs::read_to_string(world.collector.data().join(name)).context("read the CA")
        };
        let key = KeyPair::from_pem(&read("ca.key")?).context("read the CA's key")?;
        let certificate = certificates(&read("ca.pem")?)?.remove(0);
        Self::with(certificate, key)
    }

    fn with(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).context("use a CA")?;
        Ok(Self {
            issuer,
            certificate,
        })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a certificate for a fresh key.
    pub(crate) fn sign(&self, leaf: &Leaf) -> Result<Credentials> {
        self.sign_for(leaf, &p256()?)
    }

    /// Signs a certificate for this key.
    pub(crate) fn sign_for(&self, leaf: &Leaf, key: &KeyPair) -> Result<Credentials> {
        let mut params = instance_params(&leaf.name)?;
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds_now());
        let at = |seconds: i64| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 {
                now - distance
            } else {
                now + distance
            }
        };
        (params.not_before, params.not_after) = (at(leaf.from), at(leaf.until));
        params.extended_key_usages = leaf.purpose.iter().cloned().collect();
        if leaf.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        let certificate = params
            .signed_by(key, &self.issuer)
            .context("sign a certificate")?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(Credentials {
            chain,
            key: private(key),
        })
    }

    /// Signs a certificate that is used as if it were a CA's: whoever holds `middle` signs for `leaf`.
    pub(crate) fn sign_below(middle: Credentials, leaf: &Leaf) -> Result<Credentials> {
        let PrivateKeyDer::Pkcs8(pkcs8) = &middle.key else {
            anyhow::bail!("a PKCS#8 key")
        };
        let key = KeyPair::try_from(pkcs8.secret_pkcs8_der()).context("read a key")?;
        let below = Self::with(middle.chain[0].clone(), key)?;
        let mut forged = below.sign(leaf)?;
        forged.chain.extend(middle.chain.into_iter().skip(1));
        Ok(forged)
    }
}

fn instance_params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(
        format!("spiffe://driftmark/instance/{name}")
            .as_str()
            .try_into()?,
    )];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A key as the agent makes it.
pub(crate) fn p256() -> Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("make a key")
}

/// A key for TLS.
pub(crate) fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

/// The request of an honest agent: nothing but its key.
pub(crate) fn request(key: &KeyPair) -> Result<String> {
    let request = CertificateParams::default()
        .serialize_request(key)
        .context("sign a request")?;
    request.pem().context("write a request")
}

/// A request for everything that an attacker would like to be: a victim, a CA, a server, for a century.
pub(crate) fn greedy_request(key: &KeyPair, victim: &str) -> Result<String> {
    let mut params = instance_params(victim)?;
    params
        .subject_alt_names
        .push(SanType::DnsName("localhost".try_into()?));
    params
        .distinguished_name
        .push(DnType::OrganizationName, "driftmark-collector");
    params.use_authority_key_identifier_extension = false;
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::Any,
    ];
    // `cA = TRUE`, and something that nobody knows.
    params.custom_extensions = vec![
        CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]),
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]),
    ];
    params
        .serialize_request(key)
        .context("sign a request")?
        .pem()
        .context("write a request")
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("read certificates")
}

/// PEM of one certificate.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = drift::base64(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64"))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Seconds since 1970.
pub(crate) fn seconds_now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).expect("after 1970")
}
