// Package secretfile reads files that hold secrets, and promises that no other user of the
// machine has chosen what is read, unless the operator or the file's directory let them.
//
// The users who may choose it are root, the user of this process, the owners of the
// directories on the path, and the groups that may write there (Kubernetes gives volumes to
// the pod's group). Every other user is kept out:
//
//   - A directory on the path to which every user may write is refused, unless it has the
//     sticky bit, as /tmp has. In such a directory, the next name on the path must belong to
//     root, to the user of this process, or to the owner of the directory.
//   - A link is followed if it stands in a directory like that, and what it leads to is held
//     against the same rules. So the links work that Kubernetes and certbot make.
//   - The last name is opened once, without following a link and without waiting for a
//     writer. All that is judged of the file is read from the descriptor.
//
// On systems without Unix permissions only the kind and the length of a file are judged.
package secretfile
