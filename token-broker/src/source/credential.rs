//! What an application proves itself with, whatever it is: presented, and replaced when refused.

use contract::Secret;

use super::Fingerprint;
use crate::{entra::token_endpoint::Proof, failure::NoToken, https::Boxed};

/// A credential as it is presented once.
pub(super) struct Presented {
    /// What it was made of. By it one is told from the next: a signed assertion is always another.
    pub(super) material: Secret,
    /// What goes on the wire.
    pub(super) proof: Proof,
}

impl Presented {
    /// A secret, which is sent as it is.
    pub(super) fn secret(secret: Secret) -> Self {
        Self { proof: Proof::Secret(secret.clone()), material: secret }
    }

    /// A token of somebody whom the application trusts, sent as it is.
    pub(super) fn federated(token: Secret) -> Self {
        Self { proof: Proof::Federated(token.clone()), material: token }
    }
}

/// One credential of an application.
pub(super) trait Credential: Send + Sync + 'static {
    /// The credential as it is now: read, signed or asked for.
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>>;

    /// Another than the one that was refused, if there is one by now; none was where it could not
    /// be presented. Asked once for each refusal.
    fn another<'a>(&'a self, refused: Option<&'a Presented>) -> Boxed<'a, Option<Presented>> {
        Box::pin(async move {
            let now = self.present().await.ok();
            now.filter(|now| refused.is_none_or(|refused| refused.material != now.material))
        })
    }

    /// Entra has taken this one.
    fn worked(&self, _presented: Presented) {}

    /// The credential in a form that only compares; none where it cannot change by itself.
    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>>;
}
