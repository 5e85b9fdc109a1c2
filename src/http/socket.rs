//! The control socket: a Unix socket in the file system that only its owner can reach.
//!
//! Owns the socket's path from [`ControlSocket::bind`] until it is dropped. It never serves anything; that is
//! [`super::listen`]. A lock file beside the socket (`<path>.lock`, held with `flock`) decides which server owns the
//! path, so that two servers that start together cannot both find the same leftover and replace each other's socket.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use tokio::net::UnixListener;

/// Connections the kernel holds for a server that is not accepting at the moment.
const BACKLOG: i32 = 128;

/// How often to start again when the lock file vanishes between opening and locking it. Each round means that another
/// server has ended just then.
const LOCK_ATTEMPTS: usize = 16;

/// The path a server has taken for its control socket. Dropping it removes the socket, if it is still this one, and
/// gives the path free.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    identity: Identity,
    lock_path: PathBuf,
    lock: Flock<File>,
}

/// Which file a path names, however often the name is used again.
type Identity = (u64, u64);

impl ControlSocket {
    /// Takes `path` and listens there, with mode 0600 from the first instant. A socket that a dead server left behind is
    /// replaced.
    ///
    /// # Errors
    /// When another server is alive there, when the path names something else than a socket, when it cannot be bound.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), BindError> {
        let address = UnixAddr::new(path).map_err(|_| BindError::PathTooLong(path.to_owned()))?;
        let lock_path = lock_path_of(path);
        let lock = take_lock(path, &lock_path)?;
        // From here on, what goes wrong must not leave a lock file behind.
        let bound = remove_leftover(path).and_then(|()| listen(path, &address));
        match bound {
            Ok((identity, listener)) => Ok((
                Self {
                    path: path.to_owned(),
                    identity,
                    lock_path,
                    lock,
                },
                listener,
            )),
            Err(error) => {
                remove_if(&lock_path, identity_of(&lock));
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still held, and a server that waits for it checks that the file it locked is still the one of that
        // name, so that removing the lock file lets nobody believe wrongly that the path is free.
        remove_if(&self.path, Some(self.identity));
        remove_if(&self.lock_path, identity_of(&self.lock));
    }
}

/// Why a control socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path of a Unix socket has at most 107 bytes.
    #[error("{}: too long for a Unix socket (107 bytes at most)", .0.display())]
    PathTooLong(PathBuf),
    /// Another server has this socket.
    #[error("{}: another server is running there{}; stop it or choose another --control", .path.display(), Owner(.pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The other server, if it has said so.
        pid: Option<u32>,
    },
    /// The path names a file, a directory or something else that must not be replaced.
    #[error("{}: exists and is not a socket; remove it or choose another --control", .0.display())]
    NotASocket(PathBuf),
    /// Another user has created the file.
    #[error("{}: belongs to user {uid}; remove it or choose another --control", .path.display())]
    Foreign {
        /// The socket or its lock file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The lock file was never the same twice.
    #[error("{}: other servers keep starting and ending there", .0.display())]
    Contended(PathBuf),
    /// The system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// What could not be done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BindError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// ` (process 12)`, or nothing.
struct Owner<'a>(&'a Option<u32>);

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (process {pid})"))
    }
}

/// The default path of the control socket: `$XDG_RUNTIME_DIR/weir.sock`, for root without one `/run/weir.sock`, for
/// others `/tmp/weir-<uid>.sock`.
pub fn default_path() -> PathBuf {
    default_path_for(std::env::var_os("XDG_RUNTIME_DIR"), geteuid().as_raw())
}

fn default_path_for(runtime_dir: Option<OsString>, uid: u32) -> PathBuf {
    // The XDG base directory specification has relative paths ignored.
    if let Some(dir) = runtime_dir.map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return dir.join("weir.sock");
    }
    match uid {
        0 => PathBuf::from("/run/weir.sock"),
        uid => PathBuf::from(format!("/tmp/weir-{uid}.sock")),
    }
}

fn lock_path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Opens and locks the lock file, and writes this process's id into it.
fn take_lock(path: &Path, lock_path: &Path) -> Result<Flock<File>, BindError> {
    for _ in 0..LOCK_ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(lock_path)
            .map_err(|error| BindError::io("open the lock file", lock_path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| BindError::io("examine the lock file", lock_path, error))?;
        if metadata.uid() != geteuid().as_raw() {
            return Err(BindError::Foreign {
                path: lock_path.to_owned(),
                uid: metadata.uid(),
            });
        }
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(BindError::InUse {
                    path: path.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err((_, errno)) => return Err(BindError::io("lock the lock file", lock_path, errno)),
        };
        // Whoever held it before may have removed it in the meantime; then this lock protects nothing.
        let named = fs::symlink_metadata(lock_path)
            .ok()
            .map(|named| (named.dev(), named.ino()));
        if named != Some((metadata.dev(), metadata.ino())) {
            continue;
        }
        write_pid(&mut lock).map_err(|error| BindError::io("write the lock file", lock_path, error))?;
        return Ok(lock);
    }
    Err(BindError::Contended(path.to_owned()))
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes way for the socket: removes one that nobody listens on.
fn remove_leftover(path: &Path) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::io("examine what is there", path, error)),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(BindError::Foreign {
            path: path.to_owned(),
            uid: metadata.uid(),
        });
    }
    match connect(path) {
        // EAGAIN: somebody listens and has more callers than it can take.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::InUse {
            path: path.to_owned(),
            pid: None,
        }),
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ECONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BindError::io("remove the socket of a dead server", path, error))
            }
            _ => Ok(()),
        },
        Err(errno) => Err(BindError::io("find out whether a server is running", path, errno)),
    }
}

/// Connects without waiting, to see whether anybody is there.
fn connect(path: &Path) -> nix::Result<()> {
    let socket = new_socket()?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn listen(path: &Path, address: &UnixAddr) -> Result<(Identity, UnixListener), BindError> {
    let socket = new_socket().map_err(|errno| BindError::io("make a socket", path, errno))?;
    // unix(7): the file that bind(2) makes gets the mode of the socket, less the umask. So nobody else can connect, not
    // even between bind and a chmod, and the umask, which all threads share, is left alone.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| BindError::io("restrict", path, errno))?;
    socket::bind(socket.as_raw_fd(), address).map_err(|errno| BindError::io("bind", path, errno))?;
    let listening = || -> io::Result<(Identity, UnixListener)> {
        let metadata = fs::symlink_metadata(path)?;
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
        let listener = UnixListener::from_std(StdUnixListener::from(socket))?;
        Ok(((metadata.dev(), metadata.ino()), listener))
    };
    listening().map_err(|error| {
        // Bound a moment ago under the lock, so it is ours.
        let _ = fs::remove_file(path);
        BindError::io("listen", path, error)
    })
}

fn identity_of(file: &File) -> Option<Identity> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes a file if it is still the one it was.
fn remove_if(path: &Path, identity: Option<Identity>) {
    let now = fs::symlink_metadata(path).ok().map(|now| (now.dev(), now.ino()));
    if now.is_some() && now == identity {
        // Nothing useful can be done when it fails: the next server finds the leftover and replaces it.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        (dir, path)
    }

    fn files(dir: &tempfile::TempDir) -> Vec<OsString> {
        fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_nothing_is_left_behind() {
        let (dir, path) = scratch();
        let (control, _listener) = ControlSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(control);
        assert_eq!(files(&dir), Vec::<OsString>::new());
    }

    #[tokio::test]
    async fn a_second_server_is_refused_and_told_by_whom() {
        let (_dir, path) = scratch();
        let _first = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        let pid = std::process::id();
        assert!(
            matches!(error, BindError::InUse { pid: Some(p), .. } if p == pid),
            "{error:?}"
        );
        assert!(error.to_string().contains(&format!("(process {pid})")), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_live_listener_without_a_lock_is_refused_too() {
        let (dir, path) = scratch();
        let _other = StdUnixListener::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::InUse { pid: None, .. }), "{error:?}");
        assert_eq!(files(&dir), ["weir.sock"]);
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced() {
        let (_dir, path) = scratch();
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");
        let _control = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_dead_servers_lock_file_is_no_obstacle() {
        let (_dir, path) = scratch();
        fs::write(lock_path_of(&path), "4194305\n").unwrap();
        ControlSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let (dir, path) = scratch();
        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(files(&dir), ["weir.sock"], "no lock file is left");
    }

    #[tokio::test]
    async fn a_symlink_in_place_of_the_lock_file_is_not_followed() {
        let (dir, path) = scratch();
        let target = dir.path().join("target");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, lock_path_of(&path)).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(
            matches!(
                error,
                BindError::Io {
                    action: "open the lock file",
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_that_is_no_longer_ours_stays() {
        let (_dir, path) = scratch();
        let (control, _listener) = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _usurper = StdUnixListener::bind(&path).unwrap();
        drop(control);
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_does_not_fit_is_refused_with_the_limit() {
        let (dir, _) = scratch();
        let path = dir.path().join("x".repeat(120));
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(error.to_string().contains("107"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let (dir, _) = scratch();
        let error = ControlSocket::bind(&dir.path().join("no/weir.sock")).unwrap_err();
        assert!(error.to_string().contains("no/weir.sock"), "{error}");
    }

    /// Many servers start at once on a leftover; exactly one wins.
    #[test]
    fn of_many_servers_one_gets_the_path() {
        let (_dir, path) = scratch();
        for _ in 0..20 {
            drop(StdUnixListener::bind(&path).unwrap());
            let barrier = std::sync::Barrier::new(8);
            let winners = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            let runtime = tokio::runtime::Builder::new_current_thread()
                                .enable_io()
                                .build()
                                .unwrap();
                            let _guard = runtime.enter();
                            barrier.wait();
                            let bound = ControlSocket::bind(&path);
                            barrier.wait();
                            match bound {
                                Ok(_) => 1,
                                Err(BindError::InUse { .. }) => 0,
                                Err(error) => panic!("{error}"),
                            }
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum::<u32>()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn default_paths() {
        let check = |dir: Option<&str>, uid, expected: &str| {
            assert_eq!(default_path_for(dir.map(OsString::from), uid), Path::new(expected));
        };
        check(Some("/run/user/1000"), 1000, "/run/user/1000/weir.sock");
        check(Some("run"), 1000, "/tmp/weir-1000.sock");
        check(None, 1000, "/tmp/weir-1000.sock");
        check(None, 0, "/run/weir.sock");
    }
}
