//! Keeps credentials out of images of the process's memory.
//!
//! Three measures, each for what the others cannot reach. What is freed is wiped, by the program's
//! allocator (`main.rs`), so that no buffer of ours or of a library's leaves a copy behind.
//! [`close`] has the kernel write no core dump and lets no other process of the same user look.
//! And what must be kept is kept [`Shielded`]: not in the clear.

use contract::Secret;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};
use zeroize::{Zeroize, Zeroizing};

/// No core dump of this process (`prctl(2)` `PR_SET_DUMPABLE`, `core(5)`), and no look into it by
/// `ptrace(2)` or `/proc/PID/{mem,environ,fd}` but for who has `CAP_SYS_PTRACE`.
pub fn close() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

/// As long as OpenSSH's: whoever reads memory with errors, or only a part of it, has no key.
const PRE_KEY_BYTES: usize = 16 * 1024;

/// A secret that is kept for later, encrypted with a key that is the digest of 16 KiB of random
/// bytes beside it (OpenSSH keeps private keys so since 8.1). That stops whoever gets at a piece of
/// memory, or looks through an image of it for keys; not who has all of it and knows this form.
pub struct Shielded {
    pre_key: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

impl Shielded {
    /// Shields a secret; none where the machine gives no random bytes.
    pub fn new(secret: &Secret) -> Option<Self> {
        let mut pre_key = Zeroizing::new(vec![0; PRE_KEY_BYTES]);
        SystemRandom::new().fill(&mut pre_key).ok()?;
        let mut sealed =
            Vec::with_capacity(secret.expose().len().saturating_add(AES_256_GCM.tag_len()));
        sealed.extend_from_slice(secret.expose().as_bytes());
        // The key encrypts this one time, so its nonce need not differ from another.
        let done = key(&pre_key)?.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed);
        if done.is_err() {
            sealed.zeroize();
            return None;
        }
        Some(Self { pre_key, sealed })
    }

    /// The secret.
    pub fn open(&self) -> Option<Secret> {
        let mut bytes = Zeroizing::new(self.sealed.clone());
        let text = key(&self.pre_key)?.open_in_place(nonce(), Aad::empty(), &mut bytes).ok()?;
        std::str::from_utf8(text).ok().map(Secret::new)
    }
}

fn key(pre_key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, digest(&SHA256, pre_key).as_ref()).ok().map(LessSafeKey::new)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b12_after_closing_there_is_no_core_dump_and_no_look_from_outside() {
        close().unwrap();
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
        let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Core);
        assert_eq!((current, maximum), (Some(0), Some(0)));
    }

    #[test]
    fn b12_a_shielded_secret_is_not_in_the_clear_and_comes_back_whole() {
        let secret = Secret::new("canary-secret");
        let shielded = Shielded::new(&secret).unwrap();
        assert_eq!(shielded.open(), Some(secret.clone()));
        assert!(!shielded.sealed.windows(6).any(|part| part == b"canary"));
        // No two are alike, and a changed bit is no secret.
        let mut other = Shielded::new(&secret).unwrap();
        assert_ne!(other.sealed, shielded.sealed);
        other.sealed[3] ^= 1;
        assert_eq!(other.open(), None);
    }
}
