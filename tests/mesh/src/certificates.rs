//! The cluster's certificate authority, the certificates of its parts, and their kubeconfigs.
//!
//! Made anew for each mesh and removed with it; they protect nothing but that.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};

use crate::paths::{API_SERVER, API_SERVICE, HOST, NODE, kubeconfig, state};

/// Who administrates: a member of the group that may do everything.
const ADMINISTRATOR: (&str, &str) = ("mesh-admin", "system:masters");

/// The parts that speak to the API server: file name, user, group.
const CLIENTS: [(&str, &str, &str); 5] = [
    ("admin", ADMINISTRATOR.0, ADMINISTRATOR.1),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:mesh", "system:nodes"),
];

/// Writes all of them into `pki`.
pub(crate) fn write() -> Result<()> {
    let folder = state("pki");
    fs::create_dir_all(&folder)?;
    let authority = authority(&folder)?;
    let api_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        HOST,
        API_SERVICE,
    ];
    serving(&folder, &authority, "apiserver", &api_names)?;
    serving(&folder, &authority, "kubelet-serving", &[NODE, HOST, "127.0.0.1"])?;
    for (name, user, group) in CLIENTS {
        let (certificate, key) = client(&authority, user, group)?;
        fs::write(folder.join(format!("{name}.crt")), &certificate)?;
        fs::write(folder.join(format!("{name}.key")), &key)?;
        fs::write(folder.join(format!("{name}.conf")), kubeconfig_text(&folder, name))?;
    }
    debug_assert_eq!(kubeconfig(), folder.join("admin.conf"), "the administrator's");
    service_account_key(&folder)
}

fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>> {
    let mut params = named("mesh-ca", "");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    fs::write(folder.join("ca.crt"), certificate.pem())?;
    fs::write(folder.join("ca.key"), key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

fn serving(
    folder: &Path,
    authority: &Issuer<'_, KeyPair>,
    name: &str,
    names: &[&str],
) -> Result<()> {
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

fn client(authority: &Issuer<'_, KeyPair>, user: &str, group: &str) -> Result<(String, String)> {
    let mut params = named(user, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Kubernetes reads the user from the common name and the group from the organization.
fn named(user: &str, group: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

/// Signs service account tokens: RSA, as in the clusters that Entra federates with.
fn service_account_key(folder: &Path) -> Result<()> {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)?;
    let private = key.to_pkcs8_pem(LineEnding::LF).context("the service account key")?;
    fs::write(folder.join("service-account.key"), private.as_bytes())?;
    let public = key.to_public_key().to_public_key_pem(LineEnding::LF)?;
    fs::write(folder.join("service-account.pub"), public)?;
    Ok(())
}

fn kubeconfig_text(folder: &Path, name: &str) -> String {
    let file = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: mesh
  cluster: {{server: '{API_SERVER}', certificate-authority: '{}'}}
users:
- name: {name}
  user: {{client-certificate: '{}', client-key: '{}'}}
contexts:
- name: mesh
  context: {{cluster: mesh, user: {name}}}
current-context: mesh
",
        folder.join("ca.crt").display(),
        file("crt"),
        file("key"),
    )
}
