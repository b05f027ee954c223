// Command docgen writes docs/configuration.md from the comments of package config's
// struct. `make docs` runs it.
//
//	docgen config.go ../../docs/configuration.md
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("two files are expected: config.go, and the page to write"))
	}
	page, err := page(os.Args[1])
	if err != nil {
		fail(err)
	}
	if err := os.WriteFile(os.Args[2], page, 0o644); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "docgen:", err)
	os.Exit(1)
}

const introduction = "# Configuration\n\n" +
	"<!-- Made from internal/config/config.go by `make docs`; change it there. -->\n\n" +
	"Watchword reads its settings from three places; a later one overrides an earlier one:\n\n" +
	"1. the defaults below;\n" +
	"2. one YAML file: the one named by `--config` or `WATCHWORD_CONFIG`, or `watchword.yaml` in the working directory if it is there;\n" +
	"3. the environment: first the names of the deployment guide (`DATABASE_URL`), over them the names that begin with `WATCHWORD_`.\n\n" +
	"Every key has a variable: `WATCHWORD_` and the path of the key in capitals, joined by `_`. A variable that is set\n" +
	"counts, even if it is empty. A list is written with commas or line breaks.\n\n" +
	"**Secrets from files.** Settings that are marked *or from a file* may be read from a file, which is named by the\n" +
	"variable with `_FILE` after it (`DATABASE_URL_FILE=/run/secrets/database`), as Docker and Kubernetes provide them. A line\n" +
	"break at the end of the file and a byte order mark (UTF-8) at its beginning are not part of the value. An empty file is an\n" +
	"error, and so is a variable beside its `_FILE`.\n\n" +
	"**Settings that change.** A running replica reads the configuration file and the files of secrets again when they change\n" +
	"(a change behind a link is seen within 5 s), and on SIGHUP. What then cannot be used is logged, and the value from before holds.\n\n" +
	"- `database.url`, `redis.url`: the users and passwords are taken over, for each connection that is made from then on; their files\n" +
	"  are read again for each of them, so also after one was denied. Connections that exist go on. While a server denies the new\n" +
	"  ones, those before are tried as well, so that the server and the file may be changed in either order. Another host, database\n" +
	"  or option needs a restart: replicas that change to another database one by one would not hear what the others revoke.\n" +
	"- `storage.key`, `storage.previous_keys`, `cluster.secret`: the log says that they need a restart, because what is in the\n" +
	"  database was written under them, by other replicas as well. [storage.md](storage.md) says how to change the storage key.\n" +
	"- `tokens.secret`, `tokens.previous_secrets`, `tokens.pkcs11.pin`, `tokens.remote.token`: they are taken over when the content of\n" +
	"  a file has stayed the same for 0.2 s. If one of them cannot be used, those from before hold. To change the signing secret, first\n" +
	"  add the present one to the file of the previous ones, then write the new one. The file of the previous ones cannot be empty:\n" +
	"  leave the last one in it, with an end that has passed.\n" +
	"- `limits`, `log.level`, and `cluster.static_peers` with `cluster.discovery` `static`: they are taken over at once.\n" +
	"- `admin.username`, `admin.password`: they make the first administrator, at a start, and nothing else.\n" +
	"- Files that other settings name: certificates with their keys (`server.tls`, `cluster.cert_file`) are read again when they change;\n" +
	"  `cluster.ca_file`, `redis.ca_file` and `users.init_file` at the start alone.\n" +
	"- All other settings: the log names each that has changed, and says that it needs a restart.\n\n" +
	"**What a file with a secret must be.** This holds for the files of `_FILE`, the storage key next to the database, the first\n" +
	"administrator's password, `users.init_file`, the private keys of `server.tls` and of `cluster.key_file`, and the token of a\n" +
	"Kubernetes service account.\n\n" +
	"- It is a regular file (no pipe, so no `<(…)` of a shell), and not every user of the machine may write to it.\n" +
	"- The storage key is refused if every user may read it, and the first password if anybody but its owner may. An init file\n" +
	"  with passwords that others may read brings a warning. The other secrets may be readable, as Kubernetes makes them unless\n" +
	"  `defaultMode` says otherwise; 0400 is better.\n" +
	"- No directory on its path may be one to which every user may write (`chmod o-w`), unless it has the sticky bit, as `/tmp` and\n" +
	"  the volumes of Kubernetes have. There, the next name on the path must belong to root, to the user of Watchword, or to the\n" +
	"  directory's owner.\n" +
	"- A link is followed by the same rules: those who may write to its directory may choose what it leads to. So the links in\n" +
	"  volumes of Kubernetes (`tls.key` → `..data/tls.key`) and of certbot work, and a link that another user puts into `/tmp` does\n" +
	"  not.\n" +
	"- The owners of its directories and the groups that may write there are trusted: Kubernetes gives volumes to the pod's group\n" +
	"  (`fsGroup`).\n\n" +
	"**Variables in the YAML file.** `${NAME}` in a value is replaced with the variable `NAME`; a variable that is not set is\n" +
	"an error. `$${` stands for the two characters themselves.\n\n" +
	"**Nothing is ignored.** An unknown key, an unknown `WATCHWORD_` variable, a key that stands twice, or a value of the wrong\n" +
	"kind stops the start, with the line and, where there is one, the nearest known name. So does what cannot work together.\n" +
	"`watchword config check FILE` finds this beforehand, and `watchword config` prints the settings in effect with secrets masked.\n\n" +
	"Durations are written `30s`, `5m`, `3h` or `1h30m`; `0s` is none.\n"

// page makes the manual from the source of config's struct.
func page(source string) ([]byte, error) {
	comments, err := readComments(source)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(introduction)
	last := ""
	for _, s := range config.Settings() {
		section := s.Key[:strings.LastIndex(s.Key, ".")]
		if section != last {
			comment := comments[section]
			if comment == "" {
				return nil, fmt.Errorf("the section %s has no comment", section)
			}
			fmt.Fprintf(&out, "\n## %s\n\n%s\n\n| key | environment | type | default | meaning |\n|---|---|---|---|---|\n", section, comment)
			last = section
		}
		comment := comments[s.Key]
		if comment == "" {
			return nil, fmt.Errorf("the setting %s has no comment", s.Key)
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", s.Key, environment(s), typeName(s), defaultValue(s), cell(comment))
	}
	return out.Bytes(), nil
}

func environment(s config.Setting) string {
	if s.Alias == "" {
		return "`" + s.Env + "`"
	}
	return fmt.Sprintf("`%s`, `%s`, or from a file", s.Env, s.Alias)
}

func typeName(s config.Setting) string {
	if len(s.OneOf) > 0 {
		return "`" + strings.Join(s.OneOf, "`, `") + "`"
	}
	switch s.Type {
	case reflect.TypeFor[string]():
		return "text"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[int]():
		return "number"
	case reflect.TypeFor[bool]():
		return "`true` or `false`"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[config.Rate]():
		return "rate, `off`"
	case reflect.TypeFor[config.Ratio]():
		return "number from 0 to 1"
	case reflect.TypeFor[config.KiB]():
		return "memory"
	case reflect.TypeFor[config.Required]():
		return "`never`, `when-enrolled`, `always`, `claims:[…]`"
	case reflect.TypeFor[config.OnOutage]():
		return "`deny`, `allow`, `allow` and a duration"
	}
	panic("docgen: no name for the type of " + s.Key)
}

func defaultValue(s config.Setting) string {
	if text := s.Format(config.Default()); text != "" {
		return "`" + text + "`"
	}
	return ""
}

// cell makes a comment fit into a table.
func cell(comment string) string { return strings.ReplaceAll(comment, "|", `\|`) }

// A section is a struct and its comment.
type section struct {
	*ast.StructType
	comment string
}

// readComments returns the comments of sections and settings by their keys.
func readComments(source string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	structs := map[string]section{}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range decl.Specs {
			if t, ok := spec.(*ast.TypeSpec); ok {
				if s, ok := t.Type.(*ast.StructType); ok {
					structs[t.Name.Name] = section{s, decl.Doc.Text()}
				}
			}
		}
	}
	if _, found := structs["Config"]; !found {
		return nil, fmt.Errorf("%s has no struct Config", source)
	}
	comments := map[string]string{}
	collect(structs, structs["Config"], "", comments)
	return comments, nil
}

func collect(structs map[string]section, s section, path string, comments map[string]string) {
	for _, field := range s.Fields.List {
		tag, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			panic(err) // the file has been parsed
		}
		key := strings.TrimPrefix(path+"."+reflect.StructTag(tag).Get("yaml"), ".")
		comment := field.Doc.Text()
		if name, ok := field.Type.(*ast.Ident); ok && structs[name.Name].StructType != nil {
			if comment == "" { // several sections may have one type
				comment = structs[name.Name].comment
			}
			collect(structs, structs[name.Name], key, comments)
		}
		comments[key] = strings.Join(strings.Fields(comment), " ")
	}
}
