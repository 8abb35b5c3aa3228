//! Secrets are not used in a forked child, also where the child has the same process number as its
//! parent: both are the first process of a PID namespace.
//!
//! The test starts itself again below `unshare --pid --fork`, so as the first process of a
//! namespace; that process draws secrets and makes children in namespaces of their own, which must
//! be refused everything, while its own secrets go on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod harness;

use std::process::Command;

use sotto::params::Shape;
use sotto::scheme::{Decoder, QueryId, SecretError, SecretPool, Selection, Sharing};

/// Set in the process that draws and forks.
const INSIDE: &str = "SOTTO_TEST_FORK_INSIDE";
/// What a child ends with where it was refused everything, as the same or another process number.
const REFUSED_SAME_NUMBER: i32 = 40;
const REFUSED_OTHER_NUMBER: i32 = 41;
const NOT_REFUSED: i32 = 42;

/// How a child is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fork {
    /// The C library's `fork`.
    Plain,
    /// The same, after `unshare`: the child is the first process of its namespace.
    Namespace,
    /// The bare system call, of which the C library knows nothing.
    BareNamespace,
}

struct Drawn {
    pool: SecretPool,
    decoder: Decoder,
    query: QueryId,
    shape: Shape,
}

impl Drawn {
    fn new() -> Self {
        let shape = Shape::new(24, 128, 1, 192).unwrap();
        let mut pools = [0, 1].map(|_| SecretPool::new([1; 32], shape));
        let query = pools
            .each_mut()
            .map(|pool| pool.encrypt(&[(3, Selection::new(5, 77))], Sharing::Shared).unwrap()[0]);
        let [pool, sealed] = pools;
        Self { pool, decoder: sealed.seal(), query: query[1], shape }
    }

    /// Encrypting and decoding, each with what came of it.
    fn try_all(&mut self) -> [Result<(), SecretError>; 2] {
        let again = self.pool.encrypt(&[(3, Selection::new(6, 77))], Sharing::Shared);
        let response = vec![vec![0; self.shape.response_bytes()]];
        let hints = vec![0; self.shape.hint_bytes()];
        let decoded = self.decoder.decode(self.query, &self.shape, &response, &hints);
        [again.map(drop), decoded.map(drop)]
    }
}

/// Makes a child, which tries everything; back comes what it ends with.
fn in_child(how: Fork, drawn: &mut Drawn) -> i32 {
    let parent = std::process::id();
    if how == Fork::Namespace {
        // SAFETY: changes where children of this thread will be; touches no memory.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0, "unshare");
    }
    let flags = libc::c_long::from(libc::CLONE_NEWPID | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: the child is a copy of this thread alone. It computes, allocates at most in memory of
    // its own, and ends by `_exit`: no destructor and no other thread's state is touched.
    let child = unsafe {
        match how {
            Fork::BareNamespace => {
                libc::syscall(libc::SYS_clone, flags, none, none, none, none) as i32
            }
            _ => libc::fork(),
        }
    };
    if child == 0 {
        let refused = drawn.try_all().into_iter().all(|result| result == Err(SecretError::Forked));
        let status = match (refused, std::process::id() == parent) {
            (true, true) => REFUSED_SAME_NUMBER,
            (true, false) => REFUSED_OTHER_NUMBER,
            (false, _) => NOT_REFUSED,
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) }
    }
    assert!(child > 0, "no child: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: waits for the child just made; `status` is valid for the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child ended with {status:#x}");
    libc::WEXITSTATUS(status)
}

/// Runs where [`INSIDE`] is set, with the ways to fork it names.
#[test]
fn inside() {
    let Ok(ways) = std::env::var(INSIDE) else { return };
    let mut drawn = Drawn::new();
    for (how, expected) in [
        (Fork::Plain, REFUSED_OTHER_NUMBER),
        (Fork::BareNamespace, REFUSED_SAME_NUMBER),
        (Fork::Namespace, REFUSED_SAME_NUMBER),
    ] {
        if ways == "all" || how == Fork::Plain {
            assert_eq!(in_child(how, &mut drawn), expected, "{how:?}");
            assert_eq!(drawn.try_all(), [Ok(()), Ok(())], "the parent after {how:?}");
        }
    }
    println!("{ways}: refused");
}

fn run_inside(wrapper: &[&str], ways: &str) {
    let mut command = wrapper.iter().map(ToString::to_string).collect::<Vec<_>>();
    command.push(std::env::current_exe().unwrap().display().to_string());
    command.extend(["--exact", "inside", "--nocapture", "--test-threads=1"].map(str::to_owned));
    let output = Command::new(&command[0]).args(&command[1..]).env(INSIDE, ways).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains(&format!("{ways}: refused")), "{said}");
}

#[test]
fn a_forked_child_is_refused() {
    run_inside(&[], "plain");
}

#[test]
fn a_child_with_its_parents_process_number_is_refused() {
    let ways: [&[&str]; 2] = [
        &["unshare", "--pid", "--fork", "--"],
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--"],
    ];
    let allowed = ways.iter().find(|way| {
        Command::new(way[0]).args(&way[1..]).arg("true").output().is_ok_and(|o| o.status.success())
    });
    match allowed {
        Some(way) => run_inside(way, "all"),
        None => harness::skip("unshare may not make PID namespaces here"),
    }
}
