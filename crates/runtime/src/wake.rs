//! Which of a driver's streams have something to do.
//!
//! A driver polls many TCP sockets from one task. Each socket gets a waker of its own that notes the stream's
//! number and wakes the task, so that a wake-up costs work for the streams that are ready, not for all of them.
//! The lock is taken once per wake-up and once per turn of the driver, never per packet.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

#[derive(Default, Debug)]
struct State {
    ready: Vec<usize>,
    task: Option<Waker>,
}

/// The streams that were woken.
#[derive(Clone, Default, Debug)]
pub(crate) struct ReadyList(Arc<Mutex<State>>);

struct StreamWaker {
    index: usize,
    list: ReadyList,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list.push(self.index);
    }
}

impl ReadyList {
    /// A waker for stream `index`.
    pub(crate) fn waker(&self, index: usize) -> Waker {
        Arc::new(StreamWaker {
            index,
            list: self.clone(),
        })
        .into()
    }

    fn push(&self, index: usize) {
        let task = {
            let mut state = self.lock();
            state.ready.push(index);
            // One wake-up is enough until the task looks.
            state.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Moves the woken streams to the end of `to` and remembers whom to wake next time.
    pub(crate) fn take(&self, task: &Waker, to: &mut Vec<usize>) {
        let mut state = self.lock();
        to.append(&mut state.ready);
        match &mut state.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
    }

    /// Gives the memory of a crowd back.
    pub(crate) fn shrink(&self) {
        self.lock().ready.shrink_to_fit();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held; a poisoned list is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_streams_wake_the_task_once() {
        let list = ReadyList::default();
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let mut ready = Vec::new();
        list.take(&task, &mut ready);
        for i in 0..5 {
            list.waker(i).wake();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        list.take(&task, &mut ready);
        assert_eq!(ready, [0, 1, 2, 3, 4]);
        list.waker(7).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
