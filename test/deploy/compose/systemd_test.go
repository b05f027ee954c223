package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
)

// exposure bounds what `systemd-analyze security` makes of the unit, times ten. It counts the network
// and the address families, without which there is no service.
const exposure = "14"

// systemd finds no fault with the unit, alone and with cluster.conf.
func TestUnit(t *testing.T) {
	unit := read(t, systemd+"/watchword.service")
	if !strings.Contains(unit, "/usr/local/bin/watchword serve") {
		t.Fatal("the unit does not run Watchword")
	}
	for _, more := range []string{"", read(t, systemd+"/cluster.conf")} {
		dir := t.TempDir()
		file := filepath.Join(dir, "watchword.service")
		write(t, file, strings.Replace(unit, "/usr/local/bin/watchword", program, 1))
		if more != "" {
			if err := os.Mkdir(file+".d", 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(file+".d", "cluster.conf"), more)
		}
		// A word that is misspelt is a warning alone.
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v\n%s", err, out)
		}
	}
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+exposure, filepath.Join(systemd, "watchword.service")).CombinedOutput()
	if err != nil {
		t.Errorf("it is exposed too much: %v\n%s", err, out)
	}

	settings := regexp.MustCompile(`(?m)^Environment=(\w+)=(.*)$`).FindAllStringSubmatch(unit+read(t, systemd+"/cluster.conf"), -1)
	for _, s := range settings {
		checkVariables(t, s[1])
		if name, credential := strings.CutPrefix(s[2], "%d/"); credential && !strings.Contains(read(t, systemd+"/cluster.conf"), "\nLoadCredential="+name+":/etc/watchword/secrets/"+name+"\n") {
			t.Errorf("nothing provides %s", s[2])
		}
	}
	if len(settings) != 4 {
		t.Errorf("the settings are %v", settings)
	}
	users, err := filepath.Abs(systemd + "/watchword.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-sysusers", "--dry-run", users).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The configuration of a replica can be used with the secrets of cluster.conf, and systemd waits
// for as long as it may take to stop.
func TestUnitConfiguration(t *testing.T) {
	dir := t.TempDir()
	environ := []string{}
	for name, value := range map[string]string{
		"DATABASE_URL": "postgres://watchword:password@db/watchword", "AUTH_CLUSTER_SECRET": strings.Repeat("c", 40), "AUTH_STORAGE_KEY": strings.Repeat("ab", 32),
	} {
		if !strings.Contains(read(t, systemd+"/cluster.conf"), "Environment="+name+"_FILE=") {
			t.Errorf("cluster.conf does not provide %s", name)
		}
		write(t, filepath.Join(dir, name), value)
		environ = append(environ, name+"_FILE="+filepath.Join(dir, name))
	}
	cfg, err := config.Load(filepath.Join(systemd, "watchword.yaml"), environ)
	if err != nil {
		t.Fatal(err)
	}
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)s$`).FindStringSubmatch(read(t, systemd+"/watchword.service"))
	if seconds, err := strconv.Atoi(stop[1]); err != nil || time.Duration(seconds)*time.Second < cfg.Server.DrainDelay+31*time.Second {
		t.Errorf("a replica that drains for %s is killed after %s s", cfg.Server.DrainDelay, stop[1])
	}
}
