package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chart = root + "/deploy/helm/meshtalk"

// helm renders the chart as release "chat" in namespace "talk" and returns what it says. Values are as --set takes them, or a file of them.
func helm(t *testing.T, chart string, values ...string) (out string, err error) {
	t.Helper()
	args := []string{"template", "chat", chart, "--namespace", "talk", "--kube-version", "1.34.0"}
	for _, v := range values {
		option := "--set"
		if strings.HasSuffix(v, ".yaml") {
			option = "--values"
		}
		args = append(args, option, v)
	}
	b, err := exec.Command(tool(t, "HELM"), args...).CombinedOutput()
	return string(b), err
}

// rendered are the objects of a release, read as Kubernetes reads them, but for fields that it does not know: those fail.
type rendered struct {
	set      apps.StatefulSet
	services map[string]core.Service
	config   core.ConfigMap
	secret   *core.Secret
	budget   *policy.PodDisruptionBudget
	monitor  *monitor
}

// monitor is the part of a ServiceMonitor of the Prometheus operator that the chart uses.
type monitor struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		Endpoints []struct {
			Port          string `json:"port"`
			Path          string `json:"path"`
			Interval      string `json:"interval"`
			Authorization struct {
				Type        string                 `json:"type"`
				Credentials core.SecretKeySelector `json:"credentials"`
			} `json:"authorization"`
		} `json:"endpoints"`
	} `json:"spec"`
}

func render(t *testing.T, values ...string) *rendered {
	t.Helper()
	out, err := helm(t, chart, values...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := &rendered{services: map[string]core.Service{}}
	for text := range strings.SplitSeq(out, "\n---\n") {
		r.read(t, text)
	}
	return r
}

func (r *rendered) read(t *testing.T, text string) {
	t.Helper()
	var kind struct{ Kind string }
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var object any
	service := &core.Service{}
	switch kind.Kind {
	case "StatefulSet":
		object = &r.set
	case "Service":
		object = service
	case "ConfigMap":
		object = &r.config
	case "Secret":
		r.secret = &core.Secret{}
		object = r.secret
	case "PodDisruptionBudget":
		r.budget = &policy.PodDisruptionBudget{}
		object = r.budget
	case "ServiceMonitor":
		r.monitor = &monitor{}
		object = r.monitor
	default:
		t.Fatalf("a %q:\n%s", kind.Kind, text)
	}
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if kind.Kind == "Service" {
		r.services[service.Name] = *service
	}
}

func (r *rendered) pod() core.PodTemplateSpec { return r.set.Spec.Template }
func (r *rendered) container(t *testing.T) core.Container {
	t.Helper()
	if c := r.pod().Spec.Containers; len(c) == 1 {
		return c[0]
	}
	t.Fatal("not one container")
	return core.Container{}
}

// environment are the variables of the first pod; those that come from a Secret of somebody else from secrets.
func (r *rendered) environment(t *testing.T, secrets map[string]string) map[string]string {
	t.Helper()
	if r.secret != nil {
		secrets = map[string]string{}
		for key, value := range r.secret.Data {
			secrets[key] = string(value)
		}
	}
	found := map[string]string{}
	for _, e := range r.container(t).Env {
		switch from := e.ValueFrom; {
		case from == nil:
			for name, value := range found { // as Kubernetes does, with those that stand above
				e.Value = strings.ReplaceAll(e.Value, "$("+name+")", value)
			}
			found[e.Name] = e.Value
		case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name":
			found[e.Name] = r.set.Name + "-0"
		case from.SecretKeyRef != nil:
			ref := from.SecretKeyRef
			if r.secret != nil && ref.Name != r.secret.Name {
				t.Errorf("%s is from the Secret %s", e.Name, ref.Name)
			}
			value, is := secrets[ref.Key]
			if is {
				found[e.Name] = value
			} else if ref.Optional == nil || !*ref.Optional {
				t.Errorf("%s: the Secret has no %s", e.Name, ref.Key)
			}
		default:
			t.Errorf("%s: from where?", e.Name)
		}
	}
	return found
}

// meshtalk is the server's program as the first pod has it: its variables, and its configuration in a folder.
func (r *rendered) meshtalk(t *testing.T, secrets map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	folder := t.TempDir()
	for name, text := range r.config.Data {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool(t, "MESHTALK"), args...)
	for name, value := range r.environment(t, secrets) {
		if name == "MESHTALK_CONFIG" {
			value = filepath.Join(folder, strings.TrimPrefix(value, r.mounted(t, "config")))
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// mounted is where a volume stands in the container.
func (r *rendered) mounted(t *testing.T, volume string) string {
	t.Helper()
	for _, m := range r.container(t).VolumeMounts {
		if m.Name == volume {
			return m.MountPath
		}
	}
	t.Fatalf("no volume %s", volume)
	return ""
}

// effective is what `meshtalk config print` says, of the keys that these tests compare.
type effective struct {
	DataDir   string `json:"data-dir"`
	WebSocket struct {
		Enable bool
		Port   int32
	}
	TCPSocket struct {
		Enable bool
		Port   int32
	}
	Admin struct {
		Host string
		Port int32
	}
	Cluster struct {
		Enable    bool
		NodeID    string `json:"node-id"`
		Advertise string
	}
	Shutdown struct{ Timeout string }
}
