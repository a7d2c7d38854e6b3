//! Who is who in a cluster with upstream's programs: authorities, certificates and kubeconfigs, made by `openssl`.
//!
//! Everything lies in one folder that every node of the lab sees. A credential that is there already is used again, so
//! that a restarted program is who it was.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::process;

const DAYS: &str = "365";
/// Nothing of the machine's own settings for requests counts.
const REQUEST_CONFIG: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = unnamed\n";

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Credential {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whom a credential is for.
pub struct Holder<'a> {
    pub name: &'a str,
    /// Empty for none.
    pub group: &'a str,
    /// What a server is called by; none for one that only calls.
    pub names: &'a [&'a str],
    pub addresses: &'a [Ipv4Addr],
}

impl<'a> Holder<'a> {
    pub const fn client(name: &'a str, group: &'a str) -> Self {
        Self { name, group, names: &[], addresses: &[] }
    }

    fn subject(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!("/O={}", self.group) };
        format!("{group}/CN={}", self.name)
    }

    fn extensions(&self) -> Vec<String> {
        let mut extensions = vec![
            "basicConstraints=critical,CA:FALSE".to_owned(),
            "keyUsage=critical,digitalSignature,keyEncipherment".to_owned(),
            "extendedKeyUsage=clientAuth,serverAuth".to_owned(),
        ];
        let names = self.names.iter().map(|name| format!("DNS:{name}"));
        let all: Vec<String> = names.chain(self.addresses.iter().map(|address| format!("IP:{address}"))).collect();
        if !all.is_empty() {
            extensions.push(format!("subjectAltName={}", all.join(",")));
        }
        extensions
    }
}

/// The folder, and who signs in it.
pub struct Keys {
    dir: PathBuf,
    pub authority: Credential,
    pub front_proxy: Credential,
    /// What service account tokens are signed with.
    pub token_key: PathBuf,
}

impl Keys {
    /// Authorities of its own, made when missing.
    pub fn own(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let keys = Self::in_folder(dir);
        for (authority, name) in [(&keys.authority, "kubernetes-ca"), (&keys.front_proxy, "front-proxy-ca")] {
            if !authority.certificate.exists() {
                make_authority(dir, authority, name)?;
            }
        }
        if !keys.token_key.exists() {
            let mut command = Command::new("openssl");
            command.args(["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"]);
            process::quiet(command.arg(&keys.token_key)).context("making the key of tokens")?;
        }
        Ok(keys)
    }

    /// The authorities that Coracle keeps in `authorities`, copied to where every node sees them.
    pub fn of(authorities: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        carry(authorities, dir)?;
        Ok(Self::in_folder(dir))
    }

    /// Hands the authorities on to Coracle, which takes what it finds in `authorities`.
    pub fn give(&self, authorities: &Path) -> Result<()> {
        fs::create_dir_all(authorities)?;
        carry(&self.dir, authorities)
    }

    fn in_folder(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            authority: credential(dir, "ca"),
            front_proxy: credential(dir, "front-proxy-ca"),
            token_key: dir.join("sa.key"),
        }
    }

    /// What service account tokens are verified with.
    pub fn token_public_key(&self) -> Result<PathBuf> {
        let path = self.dir.join("sa.pub");
        let mut command = Command::new("openssl");
        command.args(["pkey", "-pubout", "-in"]).arg(&self.token_key).arg("-out").arg(&path);
        process::quiet(&mut command).context("making the public key of tokens")?;
        Ok(path)
    }

    /// A credential by the cluster's authority.
    pub fn issue(&self, file: &str, holder: &Holder) -> Result<Credential> {
        self.issue_by(&self.authority, file, holder)
    }

    /// A credential by the authority of those who speak for users.
    pub fn issue_by_front_proxy(&self, file: &str, holder: &Holder) -> Result<Credential> {
        self.issue_by(&self.front_proxy, file, holder)
    }

    fn issue_by(&self, authority: &Credential, file: &str, holder: &Holder) -> Result<Credential> {
        let issued = credential(&self.dir, file);
        if !issued.certificate.exists() {
            let mut command = request(&self.dir, &issued, &holder.subject(), &holder.extensions())?;
            command.arg("-CA").arg(&authority.certificate).arg("-CAkey").arg(&authority.key);
            process::quiet(&mut command).with_context(|| format!("making the certificate of {file}"))?;
        }
        Ok(issued)
    }

    /// A kubeconfig for `holder`, whose credential is made with it.
    pub fn kubeconfig(&self, file: &str, server: &str, holder: &Holder) -> Result<PathBuf> {
        let credential = self.issue(file, holder)?;
        let path = self.dir.join(format!("{file}.kubeconfig"));
        if path.exists() {
            return Ok(path);
        }
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": self.authority.certificate}}],
            "users": [{"name": file, "user": {"client-certificate": credential.certificate, "client-key": credential.key}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": file}}],
        });
        fs::write(&path, format!("{content:#}\n")).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Copies the authorities, but not over what is there: programs that run watch these files.
fn carry(from: &Path, to: &Path) -> Result<()> {
    let files = ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key"];
    for file in files.into_iter().filter(|file| !to.join(file).exists()) {
        fs::copy(from.join(file), to.join(file)).with_context(|| format!("carrying {file} to {}", to.display()))?;
    }
    Ok(())
}

fn credential(dir: &Path, file: &str) -> Credential {
    Credential { certificate: dir.join(format!("{file}.crt")), key: dir.join(format!("{file}.key")) }
}

fn make_authority(dir: &Path, made: &Credential, name: &str) -> Result<()> {
    let extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"];
    let extensions = extensions.map(str::to_owned);
    process::quiet(&mut request(dir, made, &format!("/CN={name}"), &extensions)?)
        .with_context(|| format!("making the authority {name}"))
}

/// A new key and a certificate for it: signed by itself, unless an authority is added.
fn request(dir: &Path, made: &Credential, subject: &str, extensions: &[String]) -> Result<Command> {
    let config = dir.join("openssl.cnf");
    fs::write(&config, REQUEST_CONFIG)?;
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-days", DAYS, "-subj", subject, "-config"]).arg(config);
    command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.certificate);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_its_holder_s_is_signed_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::own(dir.path()).unwrap();
        let holder = Holder {
            name: "system:node:node1",
            group: "system:nodes",
            names: &["node1"],
            addresses: &[Ipv4Addr::new(192, 0, 2, 11)],
        };
        let issued = keys.issue("kubelet1", &holder).unwrap();
        let mut show = Command::new("openssl");
        show.args(["x509", "-noout", "-text", "-in"]).arg(&issued.certificate);
        let text = process::output(&mut show).unwrap();
        assert!(text.contains("O = system:nodes, CN = system:node:node1"), "{text}");
        assert!(text.contains("DNS:node1, IP Address:192.0.2.11"), "{text}");
        assert!(!text.contains("CA:TRUE"), "{text}");
        let mut verify = Command::new("openssl");
        verify.arg("verify").arg("-CAfile").arg(&keys.authority.certificate).arg(&issued.certificate);
        process::quiet(&mut verify).unwrap();
        let before = fs::read(&issued.certificate).unwrap();
        let again = Keys::own(dir.path()).unwrap().issue("kubelet1", &holder).unwrap();
        assert_eq!(before, fs::read(again.certificate).unwrap());
    }
}
