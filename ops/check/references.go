package check

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// CheckReferences returns what the objects of one namespace say of each other and is not so, which
// Kubernetes itself accepts.
func CheckReferences(objects []runtime.Object) error {
	deployments := of[*appsv1.Deployment](objects)
	if len(deployments) != 1 {
		return fmt.Errorf("there are %d deployments", len(deployments))
	}
	pod := deployments[0].Spec.Template
	container := pod.Spec.Containers[0]
	problems := []error{checkFiles(pod.Spec, of[*corev1.Secret](objects))}
	services := of[*corev1.Service](objects)
	for _, service := range services {
		if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			problems = append(problems, fmt.Errorf("service %s selects no pod", service.Name))
		}
		for _, port := range service.Spec.Ports {
			if !slices.ContainsFunc(container.Ports, func(it corev1.ContainerPort) bool { return it.Name == port.TargetPort.StrVal }) {
				problems = append(problems, fmt.Errorf("service %s: no port of the container is called %s", service.Name, port.TargetPort.StrVal))
			}
		}
	}
	for _, budget := range of[*policyv1.PodDisruptionBudget](objects) {
		if !selects(budget.Spec.Selector, pod.Labels) {
			problems = append(problems, fmt.Errorf("disruption budget %s selects no pod", budget.Name))
		}
	}
	for _, constraint := range pod.Spec.TopologySpreadConstraints {
		if !selects(constraint.LabelSelector, pod.Labels) {
			problems = append(problems, fmt.Errorf("the constraint on %s selects no pod", constraint.TopologyKey))
		}
	}
	for _, monitor := range of[*monitoring.ServiceMonitor](objects) {
		for _, endpoint := range monitor.Spec.Endpoints {
			isScraped := func(service *corev1.Service) bool {
				hasPort := slices.ContainsFunc(service.Spec.Ports, func(it corev1.ServicePort) bool { return it.Name == endpoint.Port })
				return hasPort && selects(&monitor.Spec.Selector, service.Labels)
			}
			if !slices.ContainsFunc(services, isScraped) {
				problems = append(problems, fmt.Errorf("service monitor %s: no service has a port %s", monitor.Name, endpoint.Port))
			}
		}
	}
	return errors.Join(problems...)
}

// Each file that the environment names must be one that a secret, mounted there, holds.
func checkFiles(pod corev1.PodSpec, secrets []*corev1.Secret) error {
	mounted := map[string]bool{}
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, volume := range pod.Volumes {
			if volume.Name != mount.Name || volume.Secret == nil {
				continue
			}
			for _, secret := range secrets {
				if secret.Name != volume.Secret.SecretName {
					continue
				}
				for key := range secret.StringData {
					mounted[path.Join(mount.MountPath, key)] = true
				}
			}
		}
	}
	var problems []error
	for _, variable := range pod.Containers[0].Env {
		if strings.HasPrefix(variable.Value, "/") && !mounted[variable.Value] {
			problems = append(problems, fmt.Errorf("%s: no secret is mounted as %s", variable.Name, variable.Value))
		}
	}
	return errors.Join(problems...)
}

// CheckGracePeriod returns an error if a pod is killed before its broker has drained, for which it
// takes up to `drain`.
func CheckGracePeriod(pod corev1.PodSpec, drain time.Duration) error {
	// What is still open after the drain is cut off, on the two ports one after the other.
	needed := drain + 2*time.Second
	if hook := pod.Containers[0].Lifecycle; hook != nil && hook.PreStop != nil {
		command := hook.PreStop.Exec.Command
		pause, err := strconv.Atoi(command[len(command)-1])
		if err != nil {
			return fmt.Errorf("preStop: %w", err)
		}
		needed += time.Duration(pause) * time.Second
	}
	if given := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; given < needed {
		return fmt.Errorf("terminationGracePeriodSeconds: %v, and a broker may need %v", given, needed)
	}
	return nil
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !parsed.Empty() && parsed.Matches(labels.Set(set))
}

func of[T runtime.Object](objects []runtime.Object) []T {
	var found []T
	for _, object := range objects {
		if it, ok := object.(T); ok {
			found = append(found, it)
		}
	}
	return found
}
