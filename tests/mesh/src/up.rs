//! Brings a mesh up, saying what is done and how long it took.

use std::{
    fs,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    Component, Image, Mesh, certificates, cgroup, control_plane, dns, down, istio,
    namespace::Namespace,
    node,
    paths::{NODE, STATE, kubeconfig, state},
    programs::Programs,
    registry, status,
    wait::poll,
};

/// Written when all is up: without it a mesh that runs is one whose start broke off.
const COMPLETE: &str = "complete";

/// Steps with the time of each.
struct Steps {
    begun: Instant,
}

impl Steps {
    fn step<T>(&self, what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        print!("{what:<44}");
        std::io::stdout().flush()?;
        let result = action();
        let verdict = if result.is_ok() { "ok" } else { "failed" };
        println!(" {verdict:>6} {:>6.1} s", begun.elapsed().as_secs_f32());
        result.with_context(|| format!("mesh up: {what}"))
    }
}

/// First part, on the machine: makes room, the namespaces, and goes on inside of their network.
///
/// # Errors
/// When the machine cannot have a mesh, or a part of it does not start.
pub fn up() -> Result<()> {
    down::need_root()?;
    let programs = Programs::from_environment()?;
    if Namespace::running().is_ok() && state(COMPLETE).exists() {
        return again();
    }
    let steps = Steps { begun: Instant::now() };
    if !status::leftovers().is_empty() {
        steps.step("removing what an earlier mesh left", down::down)?;
    }
    let own = std::env::current_exe()?;
    let namespace = steps.step("namespaces and bridge", || {
        // Keys lie here: nobody else looks in. It must not be somebody else's folder.
        fs::DirBuilder::new().mode(0o700).create(STATE).with_context(|| STATE)?;
        for folder in ["log", "components"] {
            fs::create_dir_all(state(folder))?;
        }
        programs.save()?;
        Namespace::start(own.as_os_str())
    })?;
    // The rest speaks to addresses of the mesh.
    let mut inside = namespace.in_network(&own);
    let status = inside.arg("up-inside").status()?;
    if !status.success() {
        bail!("the mesh is not up; what there is of it: `cargo xtask mesh status`, `… mesh down`");
    }
    fs::write(state(COMPLETE), "")?;
    println!("{:<44} {:>6} {:>6.1} s", "all", "ok", steps.begun.elapsed().as_secs_f32());
    println!(
        "KUBECONFIG={}, in the mesh's network: {} enter COMMAND",
        kubeconfig().display(),
        own.display()
    );
    Ok(())
}

/// A mesh that runs already gets Istio's installation again: its values may have changed.
fn again() -> Result<()> {
    let mesh = Mesh::running()?;
    println!("a mesh runs already");
    Steps { begun: Instant::now() }
        .step("Istio's installation", || mesh.apply_istio(serde_json::json!({})))
}

/// Second part, in the mesh's network.
///
/// # Errors
/// When a part does not start: with the end of its log.
pub fn inside() -> Result<()> {
    cgroup::join()?;
    let mesh = Mesh::running()?;
    let namespace = Namespace::running()?;
    let programs = Programs::of_running_mesh()?;
    let steps = Steps { begun: Instant::now() };
    let launch = |component: Component, arguments: Vec<String>| {
        component.launch(namespace, &programs, &arguments)
    };
    let base = steps.step("certificates, configurations", || {
        certificates::write()?;
        node::write(&programs)?;
        dns::write()?;
        registry::write()?;
        mesh.base_image()
    })?;
    steps.step("etcd, registry, containerd", || {
        launch(Component::Etcd, control_plane::etcd())?;
        launch(Component::Registry, registry::arguments())?;
        launch(Component::Containerd, node::containerd_arguments())?;
        mesh.wait_for(Component::Etcd)?;
        // It waits for etcd and repeats, so it may start while images are pushed.
        launch(Component::ApiServer, control_plane::api_server())
    })?;
    steps.step("images", || push_images(&mesh, &programs, &base))?;
    steps.step("API server", || mesh.wait_for(Component::ApiServer))?;
    steps.step("controllers, DNS", || {
        launch(Component::ControllerManager, control_plane::controller_manager())?;
        launch(Component::Scheduler, control_plane::scheduler())?;
        launch(Component::Dns, dns::arguments())?;
        mesh.wait_for(Component::Containerd)?;
        launch(Component::Kubelet, node::kubelet_arguments())?;
        launch(Component::Proxy, node::proxy_arguments())?;
        // The namespaces of the system are made by the API server, soon after it is ready.
        poll("the namespace kube-system", Duration::from_secs(30), || {
            mesh.apply(&dns::service()).map(|_| true)
        })
    })?;
    steps.step("Istio's installation", || {
        istio::apply(&programs, mesh.kubectl_runner(), serde_json::json!({}))
    })?;
    steps.step("node", || {
        mesh.wait_for(Component::Kubelet)?;
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s", &format!("node/{NODE}")];
        poll("the node's registration", Duration::from_secs(30), || {
            mesh.kubectl(&["get", "node", NODE]).map(|_| true)
        })
        .and_then(|()| mesh.kubectl(&ready))
        .with_context(|| Component::Kubelet.log_tail())?;
        mesh.wait_for(Component::Proxy)?;
        mesh.wait_for(Component::Dns)
    })?;
    steps.step("istiod", || istio::wait(mesh.kubectl_runner(), Duration::from_secs(120)))
}

fn push_images(mesh: &Mesh, programs: &Programs, base: &Image) -> Result<()> {
    poll("the registry", Duration::from_secs(20), || Ok(registry::is_ready()))
        .with_context(|| Component::Registry.log_tail())?;
    let pause = node::PAUSE.split_once('/').context("the name of the pause image")?.1;
    let sleep = ["/bin/sleep", "2147483647"];
    mesh.push_image(pause, base.clone().entrypoint(&sleep))?;
    mesh.push_image("mesh/base:1", base.clone().entrypoint(&sleep))?;
    istio::push_images(programs, base)?;
    // An application to try things with; `cargo xtask mesh` names it.
    match std::env::var_os("MESH_APP") {
        Some(program) => mesh.push_application(Path::new(&program)).map(drop),
        None => Ok(()),
    }
}

/// Becomes a command in the mesh's network, with its kubeconfig.
///
/// # Errors
/// When no mesh runs or the command cannot be started.
pub fn enter(words: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let [program, arguments @ ..] = words else { bail!("mesh enter COMMAND") };
    let mut command: Command = Namespace::running()?.in_network(program);
    let error = command.args(arguments).env("KUBECONFIG", kubeconfig()).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
