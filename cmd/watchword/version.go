package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/keysource/hsm"
)

// version is set by the linker in releases: -X main.version=1.2.3
var version = ""

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Long: `Show the version of this program, the Go release it was built with, the platform
it is for, and "+pkcs11" if this build can use an HSM.`,
		Example: "  watchword version",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine())
			return err
		},
	}
}

func versionLine() string {
	line := fmt.Sprintf("watchword %s %s %s/%s", versionName(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if hsm.Supported {
		line += " +pkcs11"
	}
	return line
}

// versionName is the release, or what the Go tool knows of the commit.
func versionName() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
