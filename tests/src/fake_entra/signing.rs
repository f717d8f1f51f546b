//! The keys that sign tokens, and how they roll.
//!
//! Entra publishes the next key long before it signs with it, keeps the last one for a while, and
//! in an emergency does neither (learn.microsoft.com/entra/identity-platform/signing-key-rollover):
//! [`KeyRing::roll`] and [`KeyRing::roll_without_overlap`]. What documents show of the ring is
//! `discovery`'s part.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokens::SigningKey;

use super::certificates;

/// A published signing key.
#[derive(Clone)]
pub(super) struct PublishedKey {
    pub(super) key: SigningKey,
    pub(super) certificate: Vec<u8>,
    pub(super) thumbprint: String,
    pub(super) owner: KeyOwner,
}

/// Whose tokens a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyOwner {
    /// Every Entra tenant: the documents of `common` and `organizations` show a template.
    AnyTenant,
    /// Personal Microsoft accounts only.
    Consumers,
}

/// All published keys, and which one signs.
pub(super) struct KeyRing {
    keys: Vec<PublishedKey>,
    current: String,
    next_seed: u64,
}

impl KeyRing {
    /// A ring with a signing key, the next one, and the key of personal accounts.
    pub(super) fn new(seed: u64) -> Self {
        let mut ring = Self { keys: Vec::new(), current: String::new(), next_seed: seed };
        ring.current = ring.add(KeyOwner::AnyTenant);
        ring.add(KeyOwner::AnyTenant);
        ring.add(KeyOwner::Consumers);
        ring
    }

    pub(super) fn published(&self) -> &[PublishedKey] {
        &self.keys
    }

    /// The key that signs now; it need not be published any more.
    pub(super) fn current(&self) -> &PublishedKey {
        self.find(&self.current).expect("the current key is in the ring")
    }

    pub(super) fn find(&self, kid: &str) -> Option<&PublishedKey> {
        self.keys.iter().find(|key| key.key.kid == kid)
    }

    /// Publishes one more key; answers its id.
    pub(super) fn add(&mut self, owner: KeyOwner) -> String {
        let key = published_key(self.next_seed, owner);
        self.next_seed += 1;
        let kid = key.key.kid.clone();
        self.keys.push(key);
        kid
    }

    /// Withdraws a key that does not sign now.
    pub(super) fn remove(&mut self, kid: &str) {
        assert_ne!(kid, self.current, "the current key cannot be withdrawn: roll first");
        self.keys.retain(|key| key.key.kid != kid);
    }

    /// Signs with the key that was announced; the old one stays, a new one is announced.
    pub(super) fn roll(&mut self) -> String {
        let at = self.position(&self.current);
        let mut later = self.keys.iter().skip(at + 1);
        let announced = later.find(|key| key.owner == KeyOwner::AnyTenant);
        let next = announced.map(|key| key.key.kid.clone());
        self.current = match next {
            Some(kid) => {
                self.add(KeyOwner::AnyTenant);
                kid
            }
            None => self.add(KeyOwner::AnyTenant),
        };
        self.current.clone()
    }

    /// Withdraws every tenant key at once and signs with one that nobody has seen.
    pub(super) fn roll_without_overlap(&mut self) -> String {
        self.keys.retain(|key| key.owner == KeyOwner::Consumers);
        self.current = self.add(KeyOwner::AnyTenant);
        self.current.clone()
    }

    /// Puts new key material under an id that is in use.
    pub(super) fn replace_material(&mut self, kid: &str) {
        let at = self.position(kid);
        let slot = self.keys.get_mut(at).expect("a position inside the ring");
        let mut key = published_key(self.next_seed, slot.owner);
        self.next_seed += 1;
        key.key.kid = kid.to_owned();
        *slot = key;
    }

    fn position(&self, kid: &str) -> usize {
        self.keys.iter().position(|key| key.key.kid == kid).expect("a key of the ring")
    }
}

fn published_key(seed: u64, owner: KeyOwner) -> PublishedKey {
    let mut key = SigningKey::new(seed, "", "");
    let certificate = certificates::of_signing_key(&key).expect("a certificate of a key");
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate));
    // Entra's key id is the certificate's thumbprint.
    key.kid.clone_from(&thumbprint);
    PublishedKey { key, certificate, thumbprint, owner }
}
