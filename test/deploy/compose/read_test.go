package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/config"
)

const (
	root    = "../../.."
	docker  = root + "/deploy/docker"
	systemd = root + "/deploy/systemd"
)

// A project is compose.yaml: the parts of it that are used. Any other is an error, so that a word that
// is misspelt is one.
type project struct {
	Name     string
	Replica  service `yaml:"x-replica"`
	Services map[string]service
	Networks map[string]struct {
		Internal bool
		IPAM     struct {
			Config []struct {
				Subnet  string
				IPRange string `yaml:"ip_range"`
			}
		}
	}
	Volumes map[string]any
	Secrets map[string]struct{ File string }
}

type service struct {
	Image           string
	Hostname        string
	Command         []string
	Restart         string
	ReadOnly        bool          `yaml:"read_only"`
	CapDrop         []string      `yaml:"cap_drop"`
	SecurityOpt     []string      `yaml:"security_opt"`
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	MemLimit        string        `yaml:"mem_limit"`
	SHMSize         string        `yaml:"shm_size"`
	Networks        networks
	Ports           []string
	Volumes         []string
	Secrets         []string
	Environment     map[string]string
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck     *struct {
		Test              []string
		Interval, Timeout time.Duration
		Retries           int
	}
}

// networks are written as a list, or as a mapping with addresses.
type networks map[string]struct {
	Address string `yaml:"ipv4_address"`
}

func (n *networks) UnmarshalYAML(node *yaml.Node) error {
	type plain networks
	if node.Kind != yaml.SequenceNode {
		return node.Decode((*plain)(n))
	}
	var names []string
	if err := node.Decode(&names); err != nil {
		return err
	}
	*n = networks{}
	for _, name := range names {
		(*n)[name] = struct {
			Address string `yaml:"ipv4_address"`
		}{}
	}
	return nil
}

// readProject reads compose.yaml with the defaults of its variables.
func readProject(t *testing.T) *project {
	t.Helper()
	text := regexp.MustCompile(`\$\{\w+:-([^}]*)\}`).ReplaceAllString(read(t, docker+"/compose.yaml"), "$1")
	if strings.Contains(text, "$") {
		t.Error("compose.yaml has a variable without a default")
	}
	var p project
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	return &p
}

// replicas are the names of the services that are replicas.
func (p *project) replicas() []string {
	var names []string
	for name := range p.Services {
		if strings.HasPrefix(name, "auth-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// environ is a service's environment, as processes have it.
func (s *service) environ() []string {
	var list []string
	for name, value := range s.Environment {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// checkVariables fails the test for variables that Watchword does not read.
func checkVariables(t *testing.T, names ...string) {
	t.Helper()
	known := []string{"GOMEMLIMIT", "WATCHWORD_CONFIG"}
	for _, s := range config.Settings() {
		known = append(known, s.Env)
		if s.Alias != "" {
			known = append(known, s.Alias, s.Alias+"_FILE", s.Env+"_FILE")
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Errorf("nothing reads the variable %s", name)
		}
	}
	if len(names) == 0 {
		t.Error("there are no variables")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
