//! A thread that Rust's runtime knows nothing of.

use std::io;

use crate::PlainThread;

/// See [`crate::start_plain_thread`].
#[cfg(unix)]
pub(crate) fn start_plain_thread<T: PlainThread>(stack: usize, work: &'static T) -> io::Result<()> {
    use std::ffi::c_void;
    use std::mem::MaybeUninit;
    use std::ptr;

    /// Sizes of stack that are tried, each twice the one before.
    const TRIES: u32 = 5;

    extern "C" fn enter<T: PlainThread>(work: *mut c_void) -> *mut c_void {
        // SAFETY: it is the `&'static T` that the thread was started with.
        let work = unsafe { &*work.cast::<T>().cast_const() };
        work.run();
        ptr::null_mut()
    }

    let check = |code: libc::c_int| match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: they are initialised here and destroyed below; all that is called between takes initialised ones.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    let attributes = attributes.as_mut_ptr();

    // The new thread begins with the mask of its maker: signals are for the threads that wait for them.
    let (mut all, mut old) = (
        MaybeUninit::<libc::sigset_t>::uninit(),
        MaybeUninit::<libc::sigset_t>::uninit(),
    );
    // SAFETY: the first call initialises `all`, the second one `old`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let mut made = Err(io::ErrorKind::InvalidInput.into());
    for doubled in 0..TRIES {
        let mut id = MaybeUninit::<libc::pthread_t>::uninit();
        let work = ptr::from_ref(work).cast_mut().cast();
        // SAFETY: the attributes are initialised; `work` lives for ever, may be used by any thread, and is only read.
        let code = unsafe {
            libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
            match libc::pthread_attr_setstacksize(attributes, stack << doubled) {
                0 => libc::pthread_create(id.as_mut_ptr(), attributes, enter::<T>, work),
                code => code,
            }
        };
        made = check(code);
        // Too small for this system, or for what the program's libraries keep for each thread.
        if code != libc::EINVAL {
            break;
        }
    }
    // SAFETY: `old` was initialised above, and the attributes are not used again.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
        libc::pthread_attr_destroy(attributes);
    }
    made
}

/// See [`crate::start_plain_thread`].
#[cfg(not(unix))]
pub(crate) fn start_plain_thread<T: PlainThread>(stack: usize, work: &'static T) -> io::Result<()> {
    std::thread::Builder::new()
        .stack_size(stack)
        .spawn(|| work.run())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    struct Hello(Mutex<Sender<u64>>);

    impl PlainThread for Hello {
        fn run(&self) {
            let mut blocked = 0;
            if cfg!(target_os = "linux") {
                let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
                let line = status.lines().find(|l| l.starts_with("SigBlk:"));
                let mask = line.and_then(|l| l.split_ascii_whitespace().nth(1));
                blocked = u64::from_str_radix(mask.expect("mask"), 16).expect("number");
            }
            self.0.lock().expect("lock").send(blocked).expect("sent");
        }
    }

    #[test]
    fn it_runs_and_takes_no_signals() {
        let (sender, inbox) = channel();
        let work = Box::leak(Box::new(Hello(Mutex::new(sender))));
        start_plain_thread(64 * 1024, work).expect("started");
        let blocked = inbox.recv_timeout(Duration::from_secs(20)).expect("it ran");
        #[cfg(target_os = "linux")]
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
            assert_ne!(blocked & (1 << (signal - 1)), 0, "{signal}");
        }
        #[cfg(not(target_os = "linux"))]
        let _ = blocked;
    }
}
