//! Who may connect: the Unix socket with its peers' user ids, or a TCP address.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Api;

/// Owner and group: the proxy is in the group (in Kubernetes by `fsGroup`), the application not.
const SOCKET_MODE: u32 = 0o660;
/// Of the socket's directory, where it has to be made.
const DIRECTORY_MODE: u32 = 0o750;

/// A bound listener.
pub(super) enum Bound {
    /// The api listener on its socket.
    Socket { listener: UnixListener, allow_uids: Vec<u32>, _place: Place },
    /// A TCP listener: `api`, `admin` or `compat`.
    Tcp { listener: TcpListener, name: &'static str },
}

/// A new connection.
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// The user id is not allowed (or not known): the connection is closed again.
    Refused(Option<u32>),
}

/// Why a listener cannot be bound.
#[derive(Debug)]
pub enum BindError {
    /// A TCP address.
    Tcp(SocketAddr, io::ErrorKind),
    /// The socket's directory cannot be made.
    Directory(PathBuf, io::ErrorKind),
    /// Something other than a socket has the socket's name.
    NotASocket(PathBuf),
    /// Someone listens there already.
    InUse(PathBuf),
    /// The socket itself.
    Socket(PathBuf, io::ErrorKind),
}

impl std::fmt::Display for BindError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address, kind) => write!(formatter, "cannot listen on {address}: {kind}"),
            Self::Directory(path, kind) => {
                write!(formatter, "cannot make the directory {}: {kind}", path.display())
            }
            Self::NotASocket(path) => {
                write!(formatter, "{} is there and is not a socket", path.display())
            }
            Self::InUse(path) => write!(formatter, "someone listens on {}", path.display()),
            Self::Socket(path, kind) => {
                write!(formatter, "cannot listen on {}: {kind}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}

impl Bound {
    pub(super) async fn admin(address: SocketAddr) -> Result<Self, BindError> {
        Self::tcp(address, "admin").await
    }

    pub(super) async fn compat(address: SocketAddr) -> Result<Self, BindError> {
        tracing::warn!(
            %address,
            "the compat listener is on: every process of the pod can have its tokens"
        );
        Self::tcp(address, "compat").await
    }

    /// None where there is to be none.
    pub(super) async fn api(api: &Api) -> Result<Option<Self>, BindError> {
        match api {
            Api::Off => Ok(None),
            Api::Tcp(address) => {
                tracing::warn!(
                    %address,
                    "the api listener is TCP: every process of the pod can have the tokens"
                );
                Self::tcp(*address, "api").await.map(Some)
            }
            Api::Unix { path, allow_uids } => {
                let (listener, place) = socket(path).await?;
                tracing::info!(listener = "api", path = %path.display(), "listening");
                let allow_uids = allow_uids.clone();
                Ok(Some(Self::Socket { listener, allow_uids, _place: place }))
            }
        }
    }

    async fn tcp(address: SocketAddr, name: &'static str) -> Result<Self, BindError> {
        let refused = |error: io::Error| BindError::Tcp(address, error.kind());
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        tracing::info!(listener = name, %address, "listening");
        Ok(Self::Tcp { listener, name })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "api",
            Self::Tcp { name, .. } => name,
        }
    }

    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket { .. } => None,
            Self::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp { listener, .. } => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Socket { listener, allow_uids, .. } => {
                let (stream, _unnamed) = listener.accept().await?;
                // The kernel's word (SO_PEERCRED, unix(7)), not the peer's.
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                match uid {
                    Some(uid) if allow_uids.contains(&uid) => Ok(Accepted::Unix(stream)),
                    uid => Ok(Accepted::Refused(uid)),
                }
            }
        }
    }
}

/// The socket's name in the file system; removed with it, if it is still this one.
pub(super) struct Place {
    path: PathBuf,
    inode: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Another broker may have taken the name since.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Binds beside the name and then moves there: the socket never has the name with another mode,
/// and a stale one is replaced without a gap.
async fn socket(path: &Path) -> Result<(UnixListener, Place), BindError> {
    let refused = |error: io::Error| BindError::Socket(path.to_owned(), error.kind());
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(|error| BindError::Directory(directory.to_owned(), error.kind()))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_socket) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(BindError::InUse(path.to_owned()));
            }
        }
    }
    // A short name: the length of a socket's path is bounded.
    let beside = path.with_file_name(format!(".{}", std::process::id()));
    let _left_over = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(refused)?;
    let moved = fs::set_permissions(&beside, fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::symlink_metadata(&beside))
        .and_then(|found| fs::rename(&beside, path).map(|()| found.ino()));
    match moved {
        Ok(inode) => Ok((listener, Place { path: path.to_owned(), inode })),
        Err(error) => {
            let _gone = fs::remove_file(&beside);
            Err(refused(error))
        }
    }
}
