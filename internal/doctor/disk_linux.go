package doctor

import (
	"os"

	"golang.org/x/sys/unix"
)

// networkFileSystems are those of statfs(2) that other machines serve.
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB",
	unix.AFS_SUPER_MAGIC: "AFS", unix.CEPH_SUPER_MAGIC: "CephFS", unix.CODA_SUPER_MAGIC: "Coda",
}

// diskOf returns the file system of a file.
func diskOf(file string) (disk, error) {
	info, err := os.Stat(file)
	if err != nil {
		return disk{}, err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(file, &s); err != nil {
		return disk{}, &os.PathError{Op: "statfs", Path: file, Err: err}
	}
	block := uint64(s.Bsize)
	return disk{network: networkFileSystems[int64(uint32(s.Type))], free: s.Bavail * block, whole: s.Blocks * block, file: uint64(info.Size())}, nil
}
