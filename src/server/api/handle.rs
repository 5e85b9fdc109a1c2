//! What all handles are: a node of the model, and what it takes to command its worker.

/// Declares a handle on a node.
macro_rules! handle {
    ($(#[$meta:meta])+ pub struct $handle:ident($node:ty);) => {
        $(#[$meta])+
        #[derive(Clone)]
        pub struct $handle {
            pub(super) shared: std::sync::Arc<$crate::server::workers::shared::Shared>,
            pub(super) node: std::sync::Arc<$node>,
        }

        impl $handle {
            pub(crate) fn new(
                shared: &std::sync::Arc<$crate::server::workers::shared::Shared>,
                node: &std::sync::Arc<$node>,
            ) -> Self {
                Self {
                    shared: std::sync::Arc::clone(shared),
                    node: std::sync::Arc::clone(node),
                }
            }
        }

        impl std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.node.fmt(f)
            }
        }
    };
}
pub(super) use handle;
