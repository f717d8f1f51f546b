//! A real Kubernetes with a real Istio on one bare machine, without a container engine.
//!
//! etcd, the control plane, a kubelet on containerd, kube-proxy, CoreDNS, an OCI registry and
//! istiod run in namespaces of their own ([`namespace`]): processes, mounts and the network, with
//! its bridge and iptables, are the mesh's alone, and end with its first process. What is left
//! then is one folder ([`paths::STATE`]) and the cgroups.
//!
//! | who | what |
//! |---|---|
//! | [`up`] | brings all of it up, step by step, from [`programs`] that xtask has built |
//! | [`control_plane`], [`node`], [`dns`], [`istio`] | how each part is configured |
//! | [`component`] | starts and stops one part; tests do the same |
//! | [`image`], [`registry`] | makes images and pushes them |
//! | [`down`], [`status`] | removes it, says what runs and what was left over |
//! | [`Mesh`] | what a test holds: kubectl, istioctl, helm, the registry, the parts |
//! | [`product`] | puts the product into the mesh: images, injection template, chart |
//!
//! Tests run in the mesh's network (`cargo xtask mesh test`), so they reach pods and services and
//! can listen on the bridge's addresses.

mod certificates;
mod cgroup;
pub mod component;
mod control_plane;
mod dns;
pub mod down;
mod health;
pub mod image;
mod istio;
mod kubectl;
mod mesh;
pub mod namespace;
mod node;
pub mod paths;
mod process;
pub mod product;
pub mod programs;
mod registry;
pub mod status;
pub mod up;
mod wait;

pub use component::Component;
pub use image::Image;
pub use kubectl::Finished;
pub use mesh::{Guard, Mesh};
pub use wait::{poll, until};
