//! The product in a mesh, as a platform team puts it there: its images by digest, the injection
//! template in istiod, the chart in a namespace; and the application of the pods.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    Finished, Mesh, image,
    istio::{merge, values_of},
    paths::REGISTRY,
};

/// The chart, and the values of its quick start.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../istio/chart");
const QUICK_START: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../istio/chart/examples/orders.yaml");

/// The injection template.
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../istio/istiod-values.yaml");

const TEMPLATE_IN_VALUES: &str = "/sidecarInjectorWebhook/templates/token-broker";

/// The broker's image as the template names it, to be replaced.
const BROKER_PLACEHOLDER: &str = "registry.example.com/entra-sidecar/token-broker@sha256:\
    0000000000000000000000000000000000000000000000000000000000000000";

/// The product's images in the mesh's registry.
#[derive(Debug, Clone)]
pub struct Images {
    /// `sha256:…` of the filter in the form that container engines read.
    pub filter: String,
    /// Of the same filter as a wasm artifact.
    pub filter_artifact: String,
    /// The broker's whole reference.
    pub broker: String,
}

impl Images {
    /// Of an OCI layout that has been pushed as `cargo xtask push` does.
    ///
    /// # Errors
    /// When it is no layout, or an image is not in it.
    pub fn of_layout(layout: &Path) -> Result<Self> {
        let index = std::fs::read(layout.join("index.json"))
            .with_context(|| format!("no images in {}", layout.display()))?;
        let index: Value = serde_json::from_slice(&index)?;
        let digest = |name: &str| digest(&index, name).with_context(|| format!("no image {name}"));
        Ok(Self {
            filter: digest("entra-sidecar/filter")?,
            filter_artifact: digest("entra-sidecar/filter-artifact")?,
            broker: format!(
                "{REGISTRY}/entra-sidecar/token-broker@{}",
                digest("entra-sidecar/token-broker")?
            ),
        })
    }

    /// istiod's values as they are shipped, with the broker's image of this build in the template.
    ///
    /// # Errors
    /// When the template names no image to replace.
    pub fn istio_values(&self) -> Result<Value> {
        let mut values = values_of(Path::new(TEMPLATE))?;
        let template =
            values.pointer_mut(TEMPLATE_IN_VALUES).context("no template token-broker")?;
        let shipped = template.as_str().unwrap_or_default();
        anyhow::ensure!(shipped.contains(BROKER_PLACEHOLDER), "the template has no placeholder");
        *template = json!(shipped.replace(BROKER_PLACEHOLDER, &self.broker));
        Ok(values)
    }
}

/// The digest of the image of this name; the artifact's tag ends in `-artifact`.
fn digest(index: &Value, name: &str) -> Option<String> {
    let manifests = index.get("manifests")?.as_array()?;
    let named = |manifest: &&Value| {
        let reference = manifest.pointer("/annotations/org.opencontainers.image.ref.name");
        let reference = reference.and_then(Value::as_str).and_then(|name| name.split_once(':'));
        reference.is_some_and(|(repository, tag)| {
            let kind = if tag.ends_with("-artifact") { "-artifact" } else { "" };
            format!("{repository}{kind}") == name
        })
    };
    Some(manifests.iter().find(named)?.get("digest")?.as_str()?.to_owned())
}

impl Mesh {
    /// Pushes the pods' application (`mesh-app`), a static program, and gives its image. The tag is
    /// the content's: the node has kept what it once pulled under another. For people it is
    /// `test/application:1`, too.
    ///
    /// # Errors
    /// When it cannot be read, or the registry refuses it.
    pub fn push_application(&self, program: &Path) -> Result<String> {
        let bytes = std::fs::read(program).with_context(|| program.display().to_string())?;
        let digest = image::digest(&bytes);
        let tag: String = digest.trim_start_matches("sha256:").chars().take(16).collect();
        let name = format!("test/application:{tag}");
        let image = self.base_image()?.files(&[("usr/bin/mesh-app", 0o755, &bytes)])?;
        self.push_image("test/application:1", image.clone())?;
        self.push_image(&name, image)?;
        Ok(format!("{REGISTRY}/{name}"))
    }

    /// The injection template in istiod, unless it has exactly that already.
    ///
    /// # Errors
    /// As [`Images::istio_values`], or when istiod does not get ready.
    pub fn install_template(&self, images: &Images) -> Result<()> {
        let values = images.istio_values()?;
        let injector = self.get("istio-system", &["configmap", "istio-sidecar-injector"])?;
        let config = injector.pointer("/data/config").and_then(Value::as_str).unwrap_or_default();
        let installed: Value = serde_norway::from_str(config)?;
        if installed.pointer("/templates/token-broker") != values.pointer(TEMPLATE_IN_VALUES) {
            self.apply_istio(values)?;
        }
        Ok(())
    }

    /// `helm upgrade --install RELEASE istio/chart` with the values of the quick start, these images,
    /// and these values upon them, later ones over earlier ones.
    ///
    /// # Errors
    /// When helm refuses: with what it said.
    pub fn install_chart(
        &self,
        namespace: &str,
        release: &str,
        images: &Images,
        values: &[Value],
    ) -> Result<()> {
        let mut all = json!({
            "filter": {
                "image": format!("{REGISTRY}/entra-sidecar/filter"),
                "digest": images.filter,
            },
        });
        for values in values {
            merge(&mut all, values.clone());
        }
        let mut helm = self.tool("helm")?;
        helm.args(["upgrade", "--install", release, CHART, "--namespace", namespace]);
        helm.args(["--values", QUICK_START, "--values=-"]);
        Finished::of(&mut helm, &all.to_string())?.success(&helm).map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says by a panic that it fails")]
mod tests {
    use super::*;

    #[test]
    fn an_image_and_its_artifact_are_told_apart() {
        let entry = |tag: &str, digest: &str| {
            json!({"digest": digest, "annotations": {
                "org.opencontainers.image.ref.name": format!("entra-sidecar/filter:{tag}")}})
        };
        let index = json!({"manifests": [entry("1-artifact", "sha256:b"), entry("1", "sha256:a")]});
        assert_eq!(digest(&index, "entra-sidecar/filter").unwrap(), "sha256:a");
        assert_eq!(digest(&index, "entra-sidecar/filter-artifact").unwrap(), "sha256:b");
        assert_eq!(digest(&index, "entra-sidecar/other"), None);
    }
}
